"""The archive of a sealed dataset, docs/spec/sealed-dataset.md section 2: layer `tar`."""

import re
from dataclasses import dataclass

from refusal import Refused, require

BLOCK = 512
ENVELOPE_LIMIT = 2**20


@dataclass(frozen=True)
class Entries:
    envelope: bytes
    data: bytes
    commitment: bytes


def header(name: bytes, size: int) -> bytes:
    """The one header that an entry of this name and size may have."""
    fields = {
        0: name,
        100: b"0000644",
        108: b"0000000",
        116: b"0000000",
        124: b"%011o" % size if size < 2**33 else b"\x80\0\0\0" + size.to_bytes(8, "big"),
        136: b"00000000000",
        148: b" " * 8,
        156: b"0",
        257: b"ustar\x0000",
        329: b"0000000",
        337: b"0000000",
    }
    block = bytearray(BLOCK)
    for offset, value in fields.items():
        block[offset : offset + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def stated_size(field: bytes) -> int:
    if re.fullmatch(rb"[0-7]{11}\0", field):
        return int(field[:11], 8)
    if field.startswith(b"\x80\0\0\0"):
        return int.from_bytes(field[4:], "big")
    raise Refused("tar", "size")


def size_of(block: bytes, name: bytes) -> int:
    """What the header of the entry `name` announces, in the one form that it has."""
    size = stated_size(block[124:136])
    require(block == header(name, size), "tar", "header")
    return size


def take(file: bytes, offset: int, count: int) -> bytes:
    part = file[offset : offset + count]
    require(len(part) == count, "tar", "cut short")
    return part


def entry(file: bytes, offset: int, name: bytes, limit: int | None = None) -> tuple[bytes, int]:
    """The content of the entry at `offset`, and where the next one begins."""
    size = size_of(take(file, offset, BLOCK), name)
    require(limit is None or size <= limit, "tar", "too large")
    content = take(file, offset + BLOCK, size)
    padding = take(file, offset + BLOCK + size, -size % BLOCK)
    require(not any(padding), "tar", "padding")
    return content, offset + BLOCK + size + len(padding)


def read(file: bytes) -> Entries:
    envelope, offset = entry(file, 0, b"envelope.json", ENVELOPE_LIMIT)
    data, offset = entry(file, offset, b"data")
    commitment, offset = entry(file, offset, b"commitment")
    require(len(commitment) == 32, "tar", "commitment")
    require(file[offset:] == bytes(2 * BLOCK), "tar", "end")
    return Entries(envelope, data, commitment)
