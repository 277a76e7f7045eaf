"""The hashes that owners sign, of the study in test/data/heart-disease."""

import dataclasses
from pathlib import Path

import pytest

import compose
from conftest import COHORT, STUDY, cohort, needs


def test_example_of_the_specification() -> None:
    file = b'{"manifest_version":2,"name":"a","runner":"docker-compose","docker_compose_file":"x"}'
    assert compose.compose_hash(file) == "0x85e9af0a6c799bb4ac657e8c9befea1bc4bd0eb0c54c8f54608eabc42b010e0f"


@needs(COHORT)
def test_the_command_prints_the_same_hashes() -> None:
    assert cohort("recipe", "hash", "--compose", STUDY) == dataclasses.asdict(compose.hashes(STUDY.read_bytes()))


def test_layout_changes_the_compose_hash_alone() -> None:
    file = STUDY.read_bytes()
    ours, theirs = compose.hashes(file), compose.hashes(file + b"\n")
    assert theirs == dataclasses.replace(ours, compose_hash=theirs.compose_hash) != ours


def test_output_schema_is_part_of_the_recipe() -> None:
    file = STUDY.read_bytes()
    ours, theirs = compose.hashes(file), compose.hashes(file.replace(b'"maximum": 170', b'"maximum": 171'))
    assert ours.output_schema_hash != theirs.output_schema_hash and ours.recipe_hash != theirs.recipe_hash


REFUSED = pytest.mark.parametrize(
    "before, after",
    [
        (b'"version": 1,', b'"version": 1, "version": 1,'),
        (b'"version": 1,', b'"version": 1, "\\u0076ersion": 1,'),
        (b'{ "const": "age" }', b'{ "const": "age", "const": "age" }'),
        (b'"secure_time": true,', b'"secure_time": true, "other": [{"a": 1, "a": 1}],'),
        (b'"secure_time": true,', b'"secure_time": true, "other": NaN,'),
        (b'"secure_time": true,', b'"secure_time": true, "other": "\xff",'),
        (b'{\n  "manifest_version"', b'\xef\xbb\xbf{\n  "manifest_version"'),
        (b'{\n  "manifest_version"', b" " * compose.LIMIT + b'{\n  "manifest_version"'),
    ],
    ids=["twice", "twice-escaped", "twice-in-schema", "twice-elsewhere", "nan", "not-utf8", "byte-order-mark", "large"],
)


def altered(before: bytes, after: bytes) -> bytes:
    file = STUDY.read_bytes()
    assert file.count(before) == 1
    return file.replace(before, after)


@REFUSED
def test_refused(before: bytes, after: bytes) -> None:
    with pytest.raises(ValueError):
        compose.hashes(altered(before, after))


@needs(COHORT)
@REFUSED
def test_the_command_refuses_it_too(tmp_path: Path, before: bytes, after: bytes) -> None:
    file = tmp_path / "app-compose.json"
    file.write_bytes(altered(before, after))
    assert cohort("recipe", "hash", "--compose", file) is None
