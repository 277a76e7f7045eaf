"""X-Wing and HPKE against values that the IETF draft publishes: both sides of this project could be wrong alike."""

import json
from pathlib import Path

import pytest

import hpke
import xwing

VECTOR = json.loads((Path(__file__).parent / "published_hpke.json").read_bytes())
CHACHA20_POLY1305 = b"\x00\x03"


def value(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


def test_derive_key_pair() -> None:
    secret = xwing.derive_key_pair(value("ikmR"))
    assert secret.seed == value("skRm")
    assert secret.public_key() == value("pkRm")
    assert len(secret.public_key()) == xwing.PUBLIC_KEY_BYTES


def test_decapsulate() -> None:
    assert xwing.SecretKey(value("skRm")).decapsulate(value("enc")) == value("shared_secret")


@pytest.mark.parametrize("export", VECTOR["exports"], ids=lambda export: export["exporter_context"])
def test_export(export: dict[str, str]) -> None:
    context = bytes.fromhex(export["exporter_context"])
    secret = xwing.SecretKey(value("skRm"))
    exported = hpke.export(secret, value("enc"), value("info"), context, aead=CHACHA20_POLY1305)
    assert exported.hex() == export["exported_value"]


def test_point_of_low_order_is_taken_as_it_is() -> None:
    enc = value("enc")[:1088] + bytes(32)
    assert len(xwing.SecretKey(value("skRm")).decapsulate(enc)) == 32
