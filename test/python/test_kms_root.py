"""The statement of a KMS root, docs/spec/kms-root.md, as `cohort-kms root show` makes it."""

from pathlib import Path
from typing import Any

import pytest

import kms_root
import typed_data
from canonical import tohex, unhex
from conftest import COHORT_KMS, json_of, needs

ROOT_SECRET = bytes(range(32))
REGISTRY = "0x" + "4f" * 20
TYPES = typed_data.parse_types("KmsRoot(uint32 epoch,bytes sealingKey)")


def statement(folder: Path, secret: str, *arguments: str, mode: int = 0o600) -> Any:
    file = folder / "root"
    file.write_text(secret)
    file.chmod(mode)
    return json_of(
        COHORT_KMS,
        "root",
        "show",
        "--insecure-root-file",
        file,
        "--chain-id",
        "31337",
        "--registry",
        REGISTRY,
        *arguments,
    )


@needs(COHORT_KMS)
@pytest.mark.parametrize("epoch", [0, 1, 2**32 - 1])
def test_statement(tmp_path: Path, epoch: int) -> None:
    shown = statement(tmp_path, ROOT_SECRET.hex() + "\n", "--epoch", str(epoch))
    signature = unhex(shown.pop("signature"))
    assert shown == {
        "chain_id": 31337,
        "registry": REGISTRY,
        "epoch": epoch,
        "root": typed_data.address_of_key(kms_root.signing_key(ROOT_SECRET, epoch)),
        "sealing_key": tohex(kms_root.sealing_key(ROOT_SECRET, epoch).public_key()),
    }
    struct = typed_data.struct_hash("KmsRoot", TYPES, {"epoch": epoch, "sealingKey": shown["sealing_key"]})
    domain = {"name": "Cohort KMS", "version": "1", "chainId": 31337, "verifyingContract": REGISTRY}
    assert typed_data.recover(typed_data.digest(domain, struct), signature) == shown["root"]


@needs(COHORT_KMS)
@pytest.mark.parametrize(
    "secret, mode",
    [
        (ROOT_SECRET.hex(), 0o640),
        (ROOT_SECRET.hex(), 0o604),
        (ROOT_SECRET.hex().upper(), 0o600),
        (ROOT_SECRET.hex() + "\r\n", 0o600),
        (ROOT_SECRET.hex() + "\n\n", 0o600),
        (" " + ROOT_SECRET.hex(), 0o600),
        ("0x" + ROOT_SECRET.hex(), 0o600),
        (ROOT_SECRET.hex()[2:], 0o600),
        (ROOT_SECRET.hex() + "00", 0o600),
        ("", 0o600),
    ],
)
def test_other_files_are_refused(tmp_path: Path, secret: str, mode: int) -> None:
    assert statement(tmp_path, secret, mode=mode) is None
