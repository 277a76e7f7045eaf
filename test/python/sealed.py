"""Sealed datasets, docs/spec/sealed-dataset.md: a second reader, of whole files in memory."""

import hashlib
from dataclasses import dataclass
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import archive
import canonical
import envelope
import hpke
import kms_root
from hkdf import hkdf
from refusal import Refused, require

FORMAT = envelope.FORMAT.encode()
TAG = 16


@dataclass(frozen=True)
class Keys:
    info: bytes
    wrap_key: bytes
    data_key: bytes
    chunk_key: bytes


@dataclass(frozen=True)
class SealedDataset:
    """A file that has passed the layers tar and envelope."""

    entries: archive.Entries
    envelope: dict[str, Any]

    @property
    def data_root(self) -> bytes:
        return blake3(self.entries.data).digest()

    @property
    def dataset_id(self) -> bytes:
        return hashlib.sha256(lp(b"cohort-dataset/1") + lp(self.entries.envelope) + lp(self.data_root)).digest()

    @property
    def chunk_count(self) -> int:
        return max(1, -(-self.envelope["content"]["bytes"] // self.envelope["chunk_bytes"]))

    def check_content(self) -> None:
        expected = self.envelope["content"]["bytes"] + TAG * self.chunk_count
        require(len(self.entries.data) == expected, "content", "size of data")

    def check_commitment(self) -> None:
        require(self.entries.commitment == self.data_root, "commitment", "other data")

    def unwrap(self, root_secret: bytes, attested: dict[str, Any]) -> Keys:
        """`attested` is what the KMS verified about who asks; nothing of the context is taken from the envelope."""
        secret = kms_root.sealing_key(root_secret, attested["root_epoch"])
        info = context(attested)
        wrap_key = hpke.export(secret, canonical.unhex(self.envelope["enc"]), info, b"cohort wrap key")
        wrapped = canonical.unhex(self.envelope["wrapped_key"])
        data_key = decrypt("wrap", wrap_key, bytes(12), wrapped, envelope.header(self.envelope))
        commitment = hkdf(FORMAT, data_key, b"key commitment")
        require(commitment == canonical.unhex(self.envelope["key_commitment"]), "wrap", "key_commitment")
        return Keys(info, wrap_key, data_key, hkdf(FORMAT, data_key, b"chunk key"))

    def chunk(self, keys: Keys, index: int) -> bytes:
        step = self.envelope["chunk_bytes"] + TAG
        last = index == self.chunk_count - 1
        nonce = bytes(3) + index.to_bytes(8, "big") + bytes([last])
        return decrypt("chunk", keys.chunk_key, nonce, self.entries.data[index * step : (index + 1) * step], b"")

    def plaintext(self, keys: Keys) -> bytes:
        return b"".join(self.chunk(keys, index) for index in range(self.chunk_count))


def read(file: bytes) -> SealedDataset:
    entries = archive.read(file)
    return SealedDataset(entries, envelope.parse(entries.envelope))


def lp(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


def context(attested: dict[str, Any]) -> bytes:
    parts = (
        FORMAT,
        attested["chain_id"].to_bytes(8, "big"),
        canonical.unhex(attested["app"]),
        canonical.unhex(attested["compose_hash"]),
        attested["owner"].encode(),
        attested["root_epoch"].to_bytes(4, "big"),
        canonical.unhex(attested["schema_hash"]),
    )
    return b"".join(map(lp, parts))


def decrypt(layer: str, key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, aad)
    except InvalidTag as error:
        raise Refused(layer, "does not decrypt") from error
