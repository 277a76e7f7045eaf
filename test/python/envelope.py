"""envelope.json, docs/spec/sealed-dataset.md section 3: layer `envelope`."""

import hashlib
import re
from typing import Any

import canonical
from refusal import Refused, require

FORMAT = "cohort-sealed-dataset/1"
CONSTANTS = {"aead": "AES-256-GCM", "format": FORMAT, "kdf": "HKDF-SHA256", "kem": "X-Wing"}
HEX_BYTES = {
    "app": 20,
    "compose_hash": 32,
    "enc": 1120,
    "key_commitment": 32,
    "root_key_id": 32,
    "schema_hash": 32,
    "wrapped_key": 48,
}
INTEGERS = {"chain_id": (0, 2**53 - 1), "chunk_bytes": (4096, 2**24), "root_epoch": (0, 2**32 - 1)}
MEMBERS = {*CONSTANTS, *HEX_BYTES, *INTEGERS, "content", "owner"}
KINDS = ("parquet", "csv", "arrow", "bytes")


def check(condition: bool, reason: str) -> None:
    require(condition, "envelope", reason)


def parse(data: bytes) -> dict[str, Any]:
    try:
        envelope = canonical.parse(data)
        same = canonical.form(envelope) == data
    except ValueError as error:
        raise Refused("envelope", str(error)) from error
    check(same, "not canonical")
    check(type(envelope) is dict and set(envelope) == MEMBERS, "members")
    for name, value in CONSTANTS.items():
        check(envelope[name] == value, name)
    for name, size in HEX_BYTES.items():
        check(canonical.is_hex(envelope[name], size), name)
    for name, (low, high) in INTEGERS.items():
        check(canonical.is_integer(envelope[name], low, high), name)
    check(envelope["chunk_bytes"].bit_count() == 1, "chunk_bytes")
    owner = envelope["owner"]
    check(type(owner) is str and re.fullmatch(r"[A-Za-z0-9._-]{1,31}", owner) is not None, "owner")
    check_content(envelope["content"])
    check(canonical.unhex(envelope["schema_hash"]) == schema_hash(envelope["content"]), "schema_hash")
    return envelope


def check_content(content: Any) -> None:
    check(type(content) is dict, "content")
    check({"bytes", "kind"} <= set(content) <= {"bytes", "kind", "rows", "schema"}, "members of content")
    check(canonical.is_integer(content["bytes"], 0, 2**40), "bytes")
    check(content["kind"] in KINDS, "kind")
    if "rows" in content:
        check(canonical.is_integer(content["rows"], 0, 2**53 - 1), "rows")
    if "schema" in content:
        check(type(content["schema"]) is list and len(content["schema"]) <= 4096, "schema")
        for column in content["schema"]:
            check_column(column)


def check_column(column: Any) -> None:
    check(type(column) is dict and set(column) == {"name", "type"}, "column")
    name, kind = column["name"], column["type"]
    check(type(name) is str and 1 <= len(name.encode()) <= 128, "length of a column's name")
    check(re.search(r"[\x00-\x1f\x7f-\x9f]", name) is None, "control character in a column's name")
    check(type(kind) is str and re.fullmatch(r"[\x20-\x7e]{1,256}", kind) is not None, "type of a column")


def schema_hash(content: dict[str, Any]) -> bytes:
    if "schema" not in content:
        return bytes(32)
    return hashlib.sha256(canonical.form(content["schema"])).digest()


def header(envelope: dict[str, Any]) -> bytes:
    """What AES-GCM authenticates beside the wrapped key."""
    return canonical.form({name: value for name, value in envelope.items() if name != "wrapped_key"})
