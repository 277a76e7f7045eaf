"""A reader of sealed datasets, written from docs/spec/sealed-dataset.md alone: the second implementation.

It works on whole files in memory and exists to check the specification and the vectors, not to be fast.
"""

import hashlib
import hmac
import json
import re
from dataclasses import dataclass

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = b"cohort-sealed-dataset/1"


class Refused(Exception):
    """A file that must not be used; `layer` as in section 8."""

    def __init__(self, layer, reason):
        super().__init__(f"{layer}: {reason}")
        self.layer = layer


def require(condition, layer, reason):
    if not condition:
        raise Refused(layer, reason)


def sha256(data):
    return hashlib.sha256(data).digest()


def lp(data):
    return len(data).to_bytes(4, "big") + data


def extract(salt, ikm):
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def expand(prk, info, length):
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out, counter = out + block, counter + 1
    return out[:length]


def hkdf(salt, ikm, info, length=32):
    return expand(extract(salt, ikm), info, length)


# Section 2


def tar_header(name, size):
    block = bytearray(512)

    def put(offset, data):
        block[offset : offset + len(data)] = data

    put(0, name)
    put(100, b"0000644")
    put(108, b"0000000")
    put(116, b"0000000")
    put(124, b"%011o" % size if size < 2**33 else b"\x80\0\0\0" + size.to_bytes(8, "big"))
    put(136, b"00000000000")
    put(148, b" " * 8)
    put(156, b"0")
    put(257, b"ustar\x0000")
    put(329, b"0000000")
    put(337, b"0000000")
    put(148, b"%06o\0 " % sum(block))
    return bytes(block)


class Archive:
    def __init__(self, file):
        self.file, self.at = file, 0

    def take(self, count):
        part = self.file[self.at : self.at + count]
        require(len(part) == count, "tar", "cut short")
        self.at += count
        return part

    def entry(self, name, limit=None):
        header = self.take(512)
        field = header[124:136]
        if field[0] == 0x80:
            size = int.from_bytes(field[4:], "big")
        else:
            require(re.fullmatch(rb"[0-7]{11}\0", field), "tar", "size")
            size = int(field[:11], 8)
        require(header == tar_header(name, size), "tar", "header")
        require(limit is None or size <= limit, "tar", "size over the limit")
        content = self.take(size)
        require(not any(self.take(-size % 512)), "tar", "padding")
        return content

    def end(self):
        require(self.take(1024) == bytes(1024), "tar", "end")
        require(self.at == len(self.file), "tar", "bytes after the end")


# Section 3


def canonical(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8")


def check(condition, reason):
    require(condition, "envelope", reason)


def is_integer(value, low, high):
    return type(value) is int and low <= value <= high


def is_hex(value, size):
    return type(value) is str and re.fullmatch(r"0x[0-9a-f]{%d}" % (2 * size), value) is not None


def unhex(value):
    return bytes.fromhex(value[2:])


def parse_envelope(data):
    try:
        envelope = json.loads(data.decode("utf-8"), parse_float=lambda text: None)
        check(canonical(envelope) == data, "not canonical")
    except (ValueError, RecursionError) as error:
        raise Refused("envelope", "not JSON") from error
    check(type(envelope) is dict, "not an object")
    sizes = {
        "app": 20,
        "compose_hash": 32,
        "enc": 1120,
        "key_commitment": 32,
        "root_key_id": 32,
        "schema_hash": 32,
        "wrapped_key": 48,
    }
    names = {"aead": "AES-256-GCM", "format": FORMAT.decode(), "kdf": "HKDF-SHA256", "kem": "X-Wing"}
    others = {"chain_id", "chunk_bytes", "content", "owner", "root_epoch"}
    check(set(envelope) == set(sizes) | set(names) | others, "members")
    check(all(is_hex(envelope[name], size) for name, size in sizes.items()), "hex")
    check(all(envelope[name] == value for name, value in names.items()), "algorithms")
    check(is_integer(envelope["chain_id"], 0, 2**53 - 1), "chain_id")
    check(is_integer(envelope["root_epoch"], 0, 2**32 - 1), "root_epoch")
    check(envelope["chunk_bytes"] in [2**power for power in range(12, 25)], "chunk_bytes")
    check(type(envelope["chunk_bytes"]) is int, "chunk_bytes")
    owner = envelope["owner"]
    check(type(owner) is str and re.fullmatch(r"[A-Za-z0-9._-]{1,31}", owner), "owner")
    check_content(envelope["content"])
    schema = envelope["content"].get("schema")
    schema_hash = bytes(32) if schema is None else sha256(canonical(schema))
    check(unhex(envelope["schema_hash"]) == schema_hash, "schema_hash")
    return envelope


def check_content(content):
    check(type(content) is dict, "content")
    check({"bytes", "kind"} <= set(content) <= {"bytes", "kind", "rows", "schema"}, "content members")
    check(is_integer(content["bytes"], 0, 2**40), "content.bytes")
    check(content["kind"] in ["parquet", "csv", "arrow", "bytes"], "content.kind")
    check("rows" not in content or is_integer(content["rows"], 0, 2**53 - 1), "content.rows")
    if "schema" not in content:
        return
    check(type(content["schema"]) is list and len(content["schema"]) <= 4096, "content.schema")
    for column in content["schema"]:
        check(type(column) is dict and set(column) == {"name", "type"}, "column members")
        name, kind = column["name"], column["type"]
        check(type(name) is str and 1 <= len(name.encode("utf-8")) <= 128, "column name")
        check(not re.search(r"[\x00-\x1f\x7f-\x9f]", name), "column name")
        check(type(kind) is str and re.fullmatch(r"[ -~]{1,256}", kind), "column type")


# Section 4


@dataclass
class Root:
    """The X-Wing key pair of one epoch."""

    secret: bytes

    @classmethod
    def derive(cls, root_secret, epoch):
        ikm = hkdf(b"cohort-kms-root/1", root_secret, b"sealing" + epoch.to_bytes(4, "big"))
        label = b"HPKE-v1" + b"KEM\x64\x7a" + b"\x00\x0dDeriveKeyPair" + b"\x00\x20"
        return cls(hashlib.shake_256(ikm + label).digest(32))

    def _keys(self):
        expanded = hashlib.shake_256(self.secret).digest(96)
        return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])

    def public_key(self):
        lattice, curve = self._keys()
        return lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()

    def decapsulate(self, enc):
        lattice, curve = self._keys()
        shared_lattice = lattice.decapsulate(enc[:1088])
        shared_curve = curve.exchange(X25519PublicKey.from_public_bytes(enc[1088:]))
        public_curve = curve.public_key().public_bytes_raw()
        return hashlib.sha3_256(shared_lattice + shared_curve + enc[1088:] + public_curve + rb"\.//^" + b"\\").digest()

    def wrap_key(self, enc, info):
        """HPKE mode_base, HKDF-SHA256, export-only AEAD; then Export("cohort wrap key", 32)."""
        suite = b"HPKE\x64\x7a\x00\x01\xff\xff"

        def labeled_extract(salt, label, ikm):
            return extract(salt, b"HPKE-v1" + suite + label + ikm)

        def labeled_expand(prk, label, info, length):
            return expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)

        context = b"\x00" + labeled_extract(b"", b"psk_id_hash", b"") + labeled_extract(b"", b"info_hash", info)
        secret = labeled_extract(self.decapsulate(enc), b"secret", b"")
        exporter = labeled_expand(secret, b"exp", context, 32)
        return labeled_expand(exporter, b"sec", b"cohort wrap key", 32)


def context_info(attested):
    return (
        lp(FORMAT)
        + lp(attested["chain_id"].to_bytes(8, "big"))
        + lp(unhex(attested["app"]))
        + lp(unhex(attested["compose_hash"]))
        + lp(attested["owner"].encode())
        + lp(attested["root_epoch"].to_bytes(4, "big"))
        + lp(unhex(attested["schema_hash"]))
    )


# Sections 5 to 8


@dataclass
class Opened:
    """What a valid file holds, and the values on the way."""

    plaintext: bytes
    dataset_id: bytes
    data_root: bytes
    info: bytes
    wrap_key: bytes
    data_key: bytes
    chunk_key: bytes


def decrypt(layer, key, nonce, data, aad):
    try:
        return AESGCM(key).decrypt(nonce, data, aad)
    except InvalidTag as error:
        raise Refused(layer, "does not decrypt") from error


def open_sealed(file, root_secret, attested):
    archive = Archive(file)
    envelope_bytes = archive.entry(b"envelope.json", 2**20)
    envelope = parse_envelope(envelope_bytes)
    data = archive.entry(b"data")
    commitment = archive.entry(b"commitment")
    require(len(commitment) == 32, "tar", "commitment")
    archive.end()
    length, chunk = envelope["content"]["bytes"], envelope["chunk_bytes"]
    count = max(1, -(-length // chunk))
    require(len(data) == length + 16 * count, "content", "size of data")
    data_root = blake3(data).digest()
    require(data_root == commitment, "commitment", "other data")

    info = context_info(attested)
    root = Root.derive(root_secret, attested["root_epoch"])
    wrap_key = root.wrap_key(unhex(envelope["enc"]), info)
    header = canonical({name: value for name, value in envelope.items() if name != "wrapped_key"})
    data_key = decrypt("wrap", wrap_key, bytes(12), unhex(envelope["wrapped_key"]), header)
    key_commitment = hkdf(FORMAT, data_key, b"key commitment")
    require(key_commitment == unhex(envelope["key_commitment"]), "wrap", "key_commitment")
    chunk_key = hkdf(FORMAT, data_key, b"chunk key")
    parts = []
    for index in range(count):
        nonce = bytes(3) + index.to_bytes(8, "big") + bytes([index == count - 1])
        sealed = data[index * (chunk + 16) : (index + 1) * (chunk + 16)]
        parts.append(decrypt("chunk", chunk_key, nonce, sealed, None))
    dataset_id = sha256(lp(b"cohort-dataset/1") + lp(envelope_bytes) + lp(data_root))
    return Opened(b"".join(parts), dataset_id, data_root, info, wrap_key, data_key, chunk_key)
