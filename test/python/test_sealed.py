"""Every file of test/vectors/sealed-dataset, one test each."""

import hashlib
import io
import json
import tarfile
from typing import Any

import pytest

import kms_root
import sealed
from canonical import tohex
from conftest import VECTORS
from refusal import Refused

FOLDER = VECTORS / "sealed-dataset"
INDEX = json.loads((FOLDER / "index.json").read_bytes())
ROOT_SECRET = bytes.fromhex(INDEX["root_secret"])
VALID = [case for case in INDEX["cases"] if "expected" in case]
DEFECTIVE = [case for case in INDEX["cases"] if "layer" in case]

Case = dict[str, Any]


def name(case: Case) -> str:
    return case["file"]


def test_every_file_is_in_the_index() -> None:
    assert sorted(map(name, INDEX["cases"])) == sorted(path.name for path in FOLDER.glob("*.tar"))
    assert len(VALID) + len(DEFECTIVE) == len(INDEX["cases"])
    assert {case["layer"] for case in DEFECTIVE} == {"tar", "envelope", "content", "commitment", "wrap", "chunk"}


@pytest.mark.parametrize("epoch", [0, 1])
def test_root_key_id(epoch: int) -> None:
    public_key = kms_root.sealing_key(ROOT_SECRET, epoch).public_key()
    assert tohex(hashlib.sha256(public_key).digest()) == INDEX["root_key_ids"][epoch]


@pytest.mark.parametrize("case", VALID, ids=name)
def test_valid(case: Case) -> None:
    dataset = sealed.read((FOLDER / case["file"]).read_bytes())
    dataset.check_content()
    dataset.check_commitment()
    keys = dataset.unwrap(ROOT_SECRET, case["attested"])
    plaintext = dataset.plaintext(keys)
    assert case["expected"] == {
        "dataset_id": tohex(dataset.dataset_id),
        "data_root": tohex(dataset.data_root),
        "plaintext_bytes": len(plaintext),
        "plaintext_sha256": tohex(hashlib.sha256(plaintext).digest()),
        "info": keys.info.hex(),
        "wrap_key": keys.wrap_key.hex(),
        "data_key": keys.data_key.hex(),
        "chunk_key": keys.chunk_key.hex(),
    }
    public_key = kms_root.sealing_key(ROOT_SECRET, case["attested"]["root_epoch"]).public_key()
    assert dataset.envelope["root_key_id"] == tohex(hashlib.sha256(public_key).digest())


@pytest.mark.parametrize("case", VALID, ids=name)
def test_any_tar_reads_a_valid_file(case: Case) -> None:
    file = (FOLDER / case["file"]).read_bytes()
    entries = sealed.read(file).entries
    with tarfile.open(fileobj=io.BytesIO(file), mode="r:") as tar:
        contents = {member.name: read(tar, member) for member in tar.getmembers()}
    assert contents == {"envelope.json": entries.envelope, "data": entries.data, "commitment": entries.commitment}


def read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    assert content is not None, "not a regular file"
    return content.read()


def failing_layers(file: bytes, attested: dict[str, Any]) -> set[str]:
    """All layers that refuse the file, each asked whatever the others said, where its input exists at all."""
    try:
        dataset = sealed.read(file)
    except Refused as refused:
        return {refused.layer}
    failing = set()
    for check in (dataset.check_content, dataset.check_commitment):
        try:
            check()
        except Refused as refused:
            failing.add(refused.layer)
    try:
        keys = dataset.unwrap(ROOT_SECRET, attested)
        if "content" not in failing:
            dataset.plaintext(keys)
    except Refused as refused:
        failing.add(refused.layer)
    return failing


@pytest.mark.parametrize("case", DEFECTIVE, ids=name)
def test_defective(case: Case) -> None:
    """One defect gives one layer, in every order of checks."""
    assert failing_layers((FOLDER / case["file"]).read_bytes(), case["attested"]) == {case["layer"]}


@pytest.mark.parametrize("case", VALID, ids=name)
def test_valid_files_fail_nowhere(case: Case) -> None:
    assert failing_layers((FOLDER / case["file"]).read_bytes(), case["attested"]) == set()


def test_every_byte_counts() -> None:
    """The unaltered file opens, by `test_valid_files_fail_nowhere`."""
    case = VALID[0]
    file = (FOLDER / case["file"]).read_bytes()
    for offset in range(len(file)):
        altered = bytearray(file)
        altered[offset] ^= 1
        assert failing_layers(bytes(altered), case["attested"]), offset


def test_every_cut_is_refused() -> None:
    case = VALID[0]
    file = (FOLDER / case["file"]).read_bytes()
    for length in range(len(file)):
        assert failing_layers(file[:length], case["attested"]) == {"tar"}, length
