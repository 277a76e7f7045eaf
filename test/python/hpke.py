"""HPKE (RFC 9180), mode_base with X-Wing and HKDF-SHA256: what a receiver exports."""

from hkdf import expand, extract
from xwing import KEM_ID, SecretKey

HKDF_SHA256 = b"\x00\x01"
EXPORT_ONLY = b"\xff\xff"
MODE_BASE = b"\x00"


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def export(secret: SecretKey, enc: bytes, info: bytes, context: bytes, aead: bytes = EXPORT_ONLY) -> bytes:
    """SetupBaseR(enc, secret, info).Export(context, 32)."""
    suite = b"HPKE" + KEM_ID + HKDF_SHA256 + aead
    psk_id_hash = labeled_extract(suite, b"", b"psk_id_hash", b"")
    info_hash = labeled_extract(suite, b"", b"info_hash", info)
    schedule = MODE_BASE + psk_id_hash + info_hash
    key_secret = labeled_extract(suite, secret.decapsulate(enc), b"secret", b"")
    exporter = labeled_expand(suite, key_secret, b"exp", schedule, 32)
    return labeled_expand(suite, exporter, b"sec", context, 32)
