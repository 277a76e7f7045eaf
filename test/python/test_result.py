"""Verifies the result that the end-to-end test leaves behind, and refuses altered ones."""

import copy
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from ecdsa import SECP256k1, SigningKey
from ecdsa.util import sigencode_string_canonize

import canonical
import compose
import result
import typed_data
from canonical import tohex
from conftest import COHORT, ROOT, STUDY, cohort, needs
from result import Json, Refused

RESULT = ROOT / "target" / "python" / "result.json"


@pytest.mark.skipif(not RESULT.exists(), reason=f"skipped: no {RESULT.relative_to(ROOT)}")
def test_the_result_of_a_run() -> None:
    result.verify(canonical.parse(RESULT.read_bytes()))


KEYS = {name: bytes([number]) * 32 for number, name in enumerate(("root", "agent", "analyst"), 1)}
ADDRESSES = {name: typed_data.address_of_key(key) for name, key in KEYS.items()}


def word(byte: int) -> str:
    return tohex(bytes([byte]) * 32)


def sign(key: bytes, domain: Json, types: typed_data.Types, part: Json) -> None:
    digest = typed_data.digest(domain, result.struct_hash(types, part))
    signer = SigningKey.from_string(key, SECP256k1)
    rs = signer.sign_digest_deterministic(digest, sigencode=sigencode_string_canonize)
    address = typed_data.address_of_key(key)
    forms = (rs + b"\x1b", rs + b"\x1c")
    part["signature"] = tohex(next(form for form in forms if typed_data.recover(digest, form) == address))


def payload(schema: Json) -> Json:
    """One number in each measure, the other cells suppressed."""
    values = {"count": 41, "proportion": 0.25, "mean": 150.5, "histogram": 40}
    measures = []
    for measure in schema["properties"]["measures"]["prefixItems"]:
        told = {name: rule["const"] for name, rule in measure["properties"].items() if "const" in rule}
        groups = measure["properties"]["cells"]["items"]["properties"]["key"]["prefixItems"]
        keys = map(list, itertools.product(*(group["enum"] for group in groups)))
        cells: list[Json] = [{"key": key, "suppressed": True, "value": None} for key in keys]
        cells[1] |= {"suppressed": False, "value": values[told["kind"]]}
        measures.append({**told, "cells": cells})
    return {"measures": measures}


# Of the right shape, and empty.
COLLATERAL = dict.fromkeys(
    [
        "pck_crl_issuer_chain",
        "root_ca_crl",
        "pck_crl",
        "tcb_info_issuer_chain",
        "tcb_info",
        "tcb_info_signature",
        "qe_identity_issuer_chain",
        "qe_identity",
        "qe_identity_signature",
    ],
    "",
)


def made() -> Json:
    """A result as an agent makes it, but with a quote that holds nothing but its report data."""
    app_compose = STUDY.read_text()
    hashes = vars(compose.hashes(app_compose.encode()))
    terms = {
        **hashes,
        "epsilon_per_run": "1.5",
        "delta_per_run": "0",
        "epsilon_budget": "4.5",
        "delta_budget": "0",
        "expiry": 1893456000,
        "devices": word(0),
        "systems": word(0),
        "era": 0,
        "round": 1,
    }
    run = {
        "proposal_id": tohex(result.struct_hash(result.TERMS, terms)),
        "participants": "3",
        "analyst": ADDRESSES["analyst"],
        "nonce": word(4),
        "deadline": 1893456000,
    }
    run_id = tohex(result.struct_hash(result.RUN, run))
    made: Json = {
        "format": "cohort-result/1",
        "chain_id": 31337,
        "app": tohex(bytes([0x5F]) * 20),
        "attestation": "development",
        "payload": payload(json.loads(app_compose)["cohort"]["output_schema"]),
        "certificate": {"agent": ADDRESSES["agent"], "compose_hash": hashes["compose_hash"], "not_after": 1800003600},
        "terms": terms,
        "run": run,
        "inputs": [{"owner": "hospital-A", "dataset_id": word(6)}, {"owner": "hospital-B", "dataset_id": word(7)}],
        "binding": {
            "chain_id": 31337,
            "app": tohex(bytes([0x5F]) * 20),
            "kms_root": ADDRESSES["root"],
            "challenge": word(8),
            "run_id": run_id,
            "encryption_key_hash": word(9),
            "receipt_key": ADDRESSES["agent"],
        },
        "evidence": {"quote": "", "event_log": "[]", "app_compose": app_compose, "collateral": COLLATERAL},
        "position": {"transaction": word(10), "block_number": 12, "block_hash": word(11)},
    }
    quote = (4).to_bytes(2, "little") + bytes(46 + 520) + result.bound(made["binding"])
    made["evidence"]["quote"] = quote.hex()
    made["receipt"] = {
        "run_id": run_id,
        "output_hash": result.sha256(made["payload"]),
        "inputs_hash": tohex(typed_data.keccak256(bytes([6]) * 32 + bytes([7]) * 32)),
        "evidence_hash": result.sha256({"binding": made["binding"], "evidence": made["evidence"]}),
        "epsilon": "1.5",
        "delta": "0",
        "privacy_proof": "proved",
        "produced_at": 1800000000,
    }
    domain = result.domain(made)
    sign(KEYS["root"], domain, result.CERTIFICATE, made["certificate"])
    sign(KEYS["agent"], domain, result.RECEIPT, made["receipt"])
    sign(KEYS["analyst"], domain, result.RUN, run)
    return made


MADE = made()


def test_a_made_result() -> None:
    result.verify(MADE)


def set_member(path: str, value: Any) -> Json:
    altered = copy.deepcopy(MADE)
    *parents, last = path.split(".")
    part: Any = altered
    for name in parents:
        part = part[int(name)] if isinstance(part, list) else part[name]
    assert part[last] != value
    part[last] = value
    return altered


ALTERED = pytest.mark.parametrize(
    "path, value, reason",
    [
        ("format", "cohort-result/2", "format"),
        ("chain_id", 1, "signature of Receipt"),
        ("app", tohex(bytes(20)), "signature of Receipt"),
        ("payload", {"measures": []}, "output_hash"),
        ("inputs", MADE["inputs"][::-1], "inputs_hash"),
        ("inputs.0.dataset_id", word(5), "inputs_hash"),
        ("binding.challenge", word(5), "evidence_hash"),
        ("evidence.event_log", "[ ]", "evidence_hash"),
        ("evidence.app_compose", "{}", "evidence_hash"),
        ("run.nonce", word(5), "run_id"),
        ("run.participants", "7", "number of inputs"),
        ("run.participants", "5", "run_id"),
        ("terms.epsilon_per_run", "1.4", "proposal_id"),
        ("terms.round", 2, "proposal_id"),
        ("receipt.epsilon", "1.500000001", "signature of Receipt"),
        ("receipt.delta", 1, "signature of Receipt"),
        ("receipt.privacy_proof", "declared", "signature of Receipt"),
        ("receipt.produced_at", 1800000001, "signature of Receipt"),
        ("receipt.signature", MADE["run"]["signature"], "signature of Receipt"),
        ("certificate.not_after", 1900000000, "signature of AgentCertificate"),
        ("certificate.compose_hash", word(5), "signature of AgentCertificate"),
        ("run.signature", MADE["receipt"]["signature"], "signature of RunRequest"),
        ("run.signature", "0x" + "00" * 65, "signature of RunRequest"),
    ],
)


@ALTERED
def test_altered(path: str, value: Any, reason: str) -> None:
    with pytest.raises(Refused, match=f"^{reason}$"):
        result.verify(set_member(path, value))


UNKNOWN = {"TDX quote", "storage proofs", "chain", "contract"}


def doubted_by_the_command(file: Path, value: Json) -> set[str]:
    """The checks that `cohort verify` does not find to hold, or `form` where it cannot read the file."""
    file.write_text(json.dumps(value))
    verdict = cohort("verify", "--offline", "--kms-root", ADDRESSES["root"], file)
    if not verdict:
        return {"form"}
    return {check["name"] for check in verdict["checks"] if check["verdict"] != "ok"}


@needs(COHORT)
def test_the_command_takes_the_made_result_but_for_quote_and_chain(tmp_path: Path) -> None:
    assert doubted_by_the_command(tmp_path / "result.json", MADE) == UNKNOWN


@needs(COHORT)
@ALTERED
def test_the_command_refuses_what_is_altered(tmp_path: Path, path: str, value: Any, reason: str) -> None:
    doubted = doubted_by_the_command(tmp_path / "result.json", set_member(path, value))
    assert doubted == {"form"} or doubted > UNKNOWN


def test_unknown_field() -> None:
    with pytest.raises(Refused, match="^fields$"):
        result.verify({**MADE, "note": ""})


@pytest.mark.parametrize(
    "path, value, reason",
    [
        ("evidence.app_compose", MADE["evidence"]["app_compose"] + "\n", "compose_hash of the terms"),
        ("terms.recipe_hash", word(5), "recipe_hash of the terms"),
        ("terms.output_schema_hash", word(5), "output_schema_hash of the terms"),
        ("certificate.compose_hash", word(5), "compose_hash of the certificate"),
        ("certificate.not_after", 1800000000, "end of the certificate"),
        ("receipt.epsilon", "1.4", "epsilon"),
        ("receipt.delta", "1", "delta"),
    ],
)
def test_not_what_the_owners_approved(path: str, value: Any, reason: str) -> None:
    """Whatever the hashes and signatures say."""
    with pytest.raises(Refused, match=f"^{reason}$"):
        result.check_terms(set_member(path, value))


@pytest.mark.parametrize(
    "path, value, reason",
    [
        ("binding.chain_id", 1, "chain of the binding"),
        ("binding.app", tohex(bytes(20)), "app of the binding"),
        ("binding.run_id", word(5), "run of the binding"),
        ("binding.receipt_key", ADDRESSES["analyst"], "receipt key of the binding"),
        ("binding.kms_root", ADDRESSES["analyst"], "report data of the quote"),
        ("binding.challenge", word(5), "report data of the quote"),
        ("binding.encryption_key_hash", word(5), "report data of the quote"),
    ],
)
def test_evidence_of_something_else(path: str, value: Any, reason: str) -> None:
    with pytest.raises(Refused, match=f"^{reason}$"):
        result.check_binding(set_member(path, value))


def test_report_data_is_the_table_of_the_specification() -> None:
    binding = {
        "chain_id": 31337,
        "app": "0x" + "a1" * 20,
        "kms_root": "0x" + "a2" * 20,
        "challenge": word(0xA3),
        "run_id": word(0xA4),
        "encryption_key_hash": word(0xA5),
        "receipt_key": "0x" + "a6" * 20,
    }
    table = (
        "00000010" + b"cohort-release/1".hex() + "00000008" + "0000000000007a69" + "00000014" + "a1" * 20
        + "00000014" + "a2" * 20 + "00000020" + "a3" * 32 + "00000020" + "a4" * 32 + "00000020" + "a5" * 32
        + "00000014" + "a6" * 20
    )  # fmt: skip
    assert result.bound(binding) == hashlib.sha512(bytes.fromhex(table)).digest()


def test_epsilon_has_nine_places() -> None:
    assert result.nano("1.500000001") == 1500000001
    with pytest.raises(Refused):
        result.nano("1.5000000001")
