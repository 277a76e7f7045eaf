"""The edges of each member of an envelope that the vectors leave out."""

import json
from typing import Any

import pytest

import archive
import canonical
import envelope
from conftest import VECTORS
from refusal import Refused

VALID = archive.read((VECTORS / "sealed-dataset" / "valid-csv.tar").read_bytes())


def altered(members: dict[str, Any], content: dict[str, Any]) -> bytes:
    """The valid envelope with other members, and a schema_hash that follows from them."""
    value = json.loads(VALID.envelope)
    value["content"].update(content)
    value.update({"schema_hash": canonical.tohex(envelope.schema_hash(value["content"]))} | members)
    return canonical.form(value)


def column(name: Any = "age", kind: Any = "int64") -> dict[str, Any]:
    return {"schema": [{"name": name, "type": kind}]}


@pytest.mark.parametrize(
    "members, content",
    [
        ({"chain_id": 2**53 - 1, "root_epoch": 2**32 - 1, "chunk_bytes": 2**24}, {}),
        ({"chain_id": 0, "root_epoch": 0, "chunk_bytes": 4096}, {}),
        ({"owner": "Z9._-" + "a" * 26}, {}),
        ({}, {"bytes": 2**40, "rows": 2**53 - 1}),
        ({}, {"bytes": 0, "rows": 0, "kind": "arrow"}),
        ({}, {"schema": []}),
        ({}, column("\u00a0", " ")),
        ({}, column("\u20ac" * 42 + "ab", "~" * 256)),
        ({}, {"schema": column()["schema"] * 4096}),
    ],
)
def test_taken(members: dict[str, Any], content: dict[str, Any]) -> None:
    assert envelope.parse(altered(members, content))


@pytest.mark.parametrize(
    "members, content",
    [
        ({"chain_id": -1}, {}),
        ({"chain_id": True}, {}),
        ({"chain_id": None}, {}),
        ({"chunk_bytes": 12288}, {}),
        ({"chunk_bytes": "4096"}, {}),
        ({"root_epoch": -1}, {}),
        ({"owner": 7}, {}),
        ({"owner": "caf\u00e9"}, {}),
        ({"owner": "hospital-A\n"}, {}),
        ({"app": "0x" + "4F" * 20}, {}),
        ({"content": []}, {}),
        ({}, {"bytes": True}),
        ({}, {"rows": -1}),
        ({}, {"rows": "3"}),
        ({}, {"kind": None}),
        ({}, {"schema": {}}),
        ({}, {"schema": None}),
        ({}, {"schema": ["age"]}),
        ({}, column(7)),
        ({}, column("a\u007f")),
        ({}, column("a\u009f")),
        ({}, column("\u20ac" * 43)),
        ({}, column(kind=None)),
        ({}, column(kind="")),
        ({}, column(kind="i" * 257)),
        ({}, column(kind="int64\n")),
    ],
)
def test_refused(members: dict[str, Any], content: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="^envelope: ") as refused:
        envelope.parse(altered(members, content))
    assert "schema_hash" not in str(refused.value)


@pytest.mark.parametrize(
    "before, after",
    [
        (b'"chain_id":31337', b'"chain_id":9007199254740992'),
        (b'"root_epoch":0', b'"root_epoch":-0'),
        (b'"root_epoch":0', b'"root_epoch":0.0'),
        (b'"owner":"hospital-A"', b'"owner":"\\ud800"'),
        (b'"owner":"hospital-A"', b'"owner":NaN'),
        (b'"owner":"hospital-A"', b'"owner":' + b"[" * 100000),
    ],
    ids=["integer-not-exact", "minus-zero", "fraction", "half-of-a-pair", "nan", "deep"],
)
def test_refused_text(before: bytes, after: bytes) -> None:
    assert before in VALID.envelope
    with pytest.raises(Refused, match="^envelope: "):
        envelope.parse(VALID.envelope.replace(before, after))


def test_a_whole_entry_above_the_limit() -> None:
    for size in (archive.ENVELOPE_LIMIT, archive.ENVELOPE_LIMIT + 512):
        parts = (b"envelope.json", bytes(size)), (b"data", b""), (b"commitment", bytes(32))
        file = b"".join(archive.header(name, len(part)) + part + bytes(-len(part) % 512) for name, part in parts)
        if size <= archive.ENVELOPE_LIMIT:
            assert len(archive.read(file + bytes(1024)).envelope) == size
        else:
            with pytest.raises(Refused, match="^tar: too large$"):
                archive.read(file + bytes(1024))
