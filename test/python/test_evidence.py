"""The vectors of docs/spec/evidence.md, as far as they can be checked without Intel's and NVIDIA's roots."""

import json
from typing import Any

import pytest

import chain_proof
import result
import typed_data
from conftest import ROOT, VECTORS

RESULT = ROOT / "target" / "python" / "result.json"
FOLDER = VECTORS / "evidence"
INDEX: Any = json.loads((FOLDER / "cases.json").read_text())
ABOUT_THE_CHAIN = (
    "block header,receipt proof,receipt on chain,transaction,request signature,account proof,storage proofs,run on chain,time,"
    "pinned root,quorum,own approval,datasets,analyst,agent key,budget"
).split(",")
# What result.py calls the checks of the specification that it makes.
IN_THE_FILE = {
    "payload": "output_hash",
    "compose hash": "compose_hash of the terms",
    "recipe": "recipe_hash of the terms",
    "privacy loss": "epsilon|delta",
    "receipt signature": "signature of Receipt",
    "certificate": "signature of AgentCertificate|compose_hash of the certificate|end of the certificate",
    "evidence": "evidence_hash",
    "run": "run_id|proposal_id",
    "inputs": "inputs_hash|number of inputs",
    "quote binding": "run of the binding|receipt key of the binding|report data of the quote",
}


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def digest(file: result.Json) -> bytes:
    return typed_data.digest(result.domain(file), result.struct_hash(result.RECEIPT, file["receipt"]))


@pytest.mark.parametrize("case", INDEX["files"], ids=lambda case: case["file"])
def test_the_chain(case: Any) -> None:
    file = read(case["file"])
    if "chain" not in file:
        return
    if case["file"] == "registry-of-another-image.json":
        return  # which image it must be, only the quote's own measurements tell
    if case["fails_at"] in ABOUT_THE_CHAIN or case["file"].endswith("image-not-listed.json"):
        with pytest.raises(result.Refused, match=f"^{case['fails_at']}$"):
            chain_proof.check(file, digest(file))
    elif case["fails_at"] is None:
        chain_proof.check(file, digest(file))
        assert file["position"]["block_hash"] == case["block_hash"]
        assert chain_proof.prove(file).code_hash.hex() == INDEX["code_hash"][2:]


@pytest.mark.parametrize("case", INDEX["files"], ids=lambda case: case["file"])
def test_the_file(case: Any) -> None:
    file = read(case["file"])
    if case["fails_at"] in IN_THE_FILE and file["evidence"].get("gpu") is None:
        with pytest.raises(result.Refused):
            result.verify(file)


def test_a_sound_file() -> None:
    result.verify(read("sound.json"))


@pytest.mark.skipif(not RESULT.exists(), reason=f"skipped: no {RESULT.relative_to(ROOT)}")
def test_the_chain_of_a_run() -> None:
    """What the end-to-end test leaves behind: proofs of a real node."""
    file = json.loads(RESULT.read_text())
    chain_proof.check(file, digest(file))
