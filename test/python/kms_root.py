"""The keys of a KMS root, docs/spec/kms-root.md."""

from hkdf import hkdf
from xwing import SecretKey, derive_key_pair

SALT = b"cohort-kms-root/1"


def sealing_input(root_secret: bytes, epoch: int) -> bytes:
    return hkdf(SALT, root_secret, b"sealing" + epoch.to_bytes(4, "big"))


def sealing_key(root_secret: bytes, epoch: int) -> SecretKey:
    return derive_key_pair(sealing_input(root_secret, epoch))


def signing_key(root_secret: bytes, epoch: int) -> bytes:
    """A secp256k1 private key."""
    return hkdf(SALT, root_secret, b"signing" + epoch.to_bytes(4, "big"))
