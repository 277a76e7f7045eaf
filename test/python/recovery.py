"""Recovery records, docs/spec/sealed-dataset.md section 10."""

from dataclasses import dataclass

import canonical
from hkdf import hkdf

LIMIT = 4096
MEMBERS = {"data_key", "format", "key_commitment"}


@dataclass(frozen=True)
class Record:
    data_key: bytes
    key_commitment: bytes


def parse(data: bytes) -> Record:
    """ValueError for what is no record, or none of one key."""
    if len(data) > LIMIT:
        raise ValueError("too large")
    value = canonical.parse(data)
    if type(value) is not dict or set(value) != MEMBERS or value["format"] != "cohort-recovery/1":
        raise ValueError("not a record")
    if not all(canonical.is_hex(value[name], 32) for name in ("data_key", "key_commitment")):
        raise ValueError("not hex of 32 bytes")
    record = Record(canonical.unhex(value["data_key"]), canonical.unhex(value["key_commitment"]))
    if hkdf(b"cohort-sealed-dataset/1", record.data_key, b"key commitment") != record.key_commitment:
        raise ValueError("key_commitment of another key")
    return record
