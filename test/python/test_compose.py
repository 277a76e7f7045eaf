"""The hashes that owners sign, of the study in test/data/heart-disease."""

import dataclasses
import json
import subprocess

import pytest

import compose
from conftest import ROOT

STUDY = ROOT / "test" / "data" / "heart-disease" / "app-compose.json"
COHORT = ROOT / "target" / "debug" / "cohort"


def test_example_of_the_specification() -> None:
    file = b'{"manifest_version":2,"name":"a","runner":"docker-compose","docker_compose_file":"x"}'
    assert compose.compose_hash(file) == "0x85e9af0a6c799bb4ac657e8c9befea1bc4bd0eb0c54c8f54608eabc42b010e0f"


@pytest.mark.skipif(not COHORT.exists(), reason="skipped: target/debug/cohort is not built")
def test_the_command_prints_the_same_hashes() -> None:
    command = [str(COHORT), "recipe", "hash", "--compose", str(STUDY), "--json"]
    output = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    assert json.loads(output) == dataclasses.asdict(compose.hashes(STUDY.read_bytes()))


def test_layout_changes_the_compose_hash_alone() -> None:
    file = STUDY.read_bytes()
    ours, theirs = compose.hashes(file), compose.hashes(file + b"\n")
    assert theirs == dataclasses.replace(ours, compose_hash=theirs.compose_hash) != ours


def test_output_schema_is_part_of_the_recipe() -> None:
    file = STUDY.read_bytes()
    ours, theirs = compose.hashes(file), compose.hashes(file.replace(b'"maximum": 170', b'"maximum": 171'))
    assert ours.output_schema_hash != theirs.output_schema_hash and ours.recipe_hash != theirs.recipe_hash


@pytest.mark.parametrize(
    "file",
    [
        b'{"cohort":{"output_schema":{}},"cohort":{"output_schema":{}}}',
        b'{"cohort":{"output_schema":{"a":1,"\\u0061":2}}}',
        b'{"cohort":{"output_schema":{}}}' + b" " * compose.LIMIT,
        b'\xef\xbb\xbf{"cohort":{"output_schema":{}}}',
        b'{"cohort":{"output_schema":{"a":NaN}}}',
        b'{"cohort":{"output_schema":{"a":"\xff"}}}',
    ],
    ids=["name-twice", "name-twice-escaped", "large", "byte-order-mark", "nan", "not-utf8"],
)
def test_refused(file: bytes) -> None:
    with pytest.raises(ValueError):
        compose.hashes(file)
