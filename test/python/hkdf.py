"""HKDF-SHA256 (RFC 5869)."""

import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand


def extract(salt: bytes, ikm: bytes) -> bytes:
    """HMAC pads its key with zeros, so an empty salt is RFC 5869's default."""
    return hmac.new(salt, ikm, hashlib.sha256).digest()


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(SHA256(), length, info).derive(prk)


def hkdf(salt: bytes, ikm: bytes, info: bytes) -> bytes:
    """32 bytes, the only length that the formats of this project take from it directly."""
    return expand(extract(salt, ikm), info, 32)
