"""A result file, docs/spec/sign-rpc.md: what can be checked without the chain and without Intel's roots."""

import hashlib
from decimal import Decimal
from typing import Any

import canonical
import compose
import typed_data
from canonical import tohex, unhex
from typed_data import keccak256, parse_types

Json = dict[str, Any]

FIELDS = set(
    "format chain_id app attestation payload receipt certificate terms run inputs binding evidence position".split()
)
TERMS = parse_types(
    "Terms(bytes32 composeHash,bytes32 recipeHash,bytes32 outputSchemaHash,uint64 epsilonPerRun,uint64 deltaPerRun,"
    "uint64 epsilonBudget,uint64 deltaBudget,uint64 expiry,bytes32 devices,bytes32 systems,uint32 era,uint32 round)"
)
RUN = parse_types("RunRequest(bytes32 proposalId,uint128 participants,address analyst,bytes32 nonce,uint64 deadline)")
CERTIFICATE = parse_types("AgentCertificate(address agent,bytes32 composeHash,uint64 notAfter)")
RECEIPT = parse_types(
    "Receipt(bytes32 runId,bytes32 outputHash,bytes32 inputsHash,bytes32 evidenceHash,uint64 epsilon,uint64 delta,"
    "uint8 privacyProof,uint64 producedAt)"
)
PRIVACY_PROOFS = {"declared": 0, "proved": 1}


class Refused(Exception):
    """The first thing in a result that does not hold."""


def require(condition: bool, what: str) -> None:
    if not condition:
        raise Refused(what)


def nano(epsilon: str) -> int:
    """A decimal text in units of 1e-9, exactly."""
    units = Decimal(epsilon) * 10**9
    require(units == int(units), "places of epsilon")
    return int(units)


EPSILONS = {"epsilon", "epsilonPerRun", "epsilonBudget"}


def message(types: typed_data.Types, part: Json) -> Json:
    """The EIP-712 message of a JSON object whose members are the type's fields in snake case."""
    fields = [field for fields in types.values() for _, field in fields]
    values = {field: part[snake(field)] for field in fields}
    for field in EPSILONS & set(values):
        values[field] = nano(values[field])
    if "privacyProof" in values:
        values["privacyProof"] = PRIVACY_PROOFS[values["privacyProof"]]
    return values


def snake(field: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in field)


def struct_hash(types: typed_data.Types, part: Json) -> bytes:
    return typed_data.struct_hash(next(iter(types)), types, message(types, part))


def sha256(value: Any) -> str:
    return tohex(hashlib.sha256(canonical.form(value)).digest())


def verify(result: Json) -> None:
    """Refused, naming the first check that fails; KeyError and ValueError for a result of another shape."""
    require(set(result) - {"chain"} == FIELDS, "fields")
    require(result["format"] == "cohort-result/1", "format")
    for check in (check_hashes, check_signatures, check_terms, check_binding):
        check(result)


def check_hashes(result: Json) -> None:
    receipt = result["receipt"]
    ids = b"".join(unhex(dataset["dataset_id"]) for dataset in result["inputs"])
    require(sha256(result["payload"]) == receipt["output_hash"], "output_hash")
    require(tohex(keccak256(ids)) == receipt["inputs_hash"], "inputs_hash")
    proof = {"binding": result["binding"], "evidence": result["evidence"]}
    require(sha256(proof) == receipt["evidence_hash"], "evidence_hash")
    require(int(result["run"]["participants"]).bit_count() == len(result["inputs"]), "number of inputs")
    require(tohex(struct_hash(RUN, result["run"])) == receipt["run_id"], "run_id")
    require(tohex(struct_hash(TERMS, result["terms"])) == result["run"]["proposal_id"], "proposal_id")


def check_signatures(result: Json) -> None:
    signed = (
        (RECEIPT, result["receipt"], result["certificate"]["agent"]),
        (CERTIFICATE, result["certificate"], result["binding"]["kms_root"]),
        (RUN, result["run"], result["run"]["analyst"]),
    )
    for types, part, signer in signed:
        digest = typed_data.digest(domain(result), struct_hash(types, part))
        require(recovered(digest, part["signature"]) == signer, f"signature of {next(iter(types))}")


def signed_by_analyst(result: Json) -> bool:
    run = result["run"]
    digest = typed_data.digest(domain(result), struct_hash(RUN, run))
    return recovered(digest, run["signature"]) == run["analyst"]


def recovered(digest: bytes, signature: str) -> str | None:
    try:
        return typed_data.recover(digest, unhex(signature))
    except ValueError:
        return None


def domain(result: Json) -> Json:
    return {"name": "DstackApp", "version": "1", "chainId": result["chain_id"], "verifyingContract": result["app"]}


def check_terms(result: Json) -> None:
    terms, certificate, receipt = result["terms"], result["certificate"], result["receipt"]
    for name, value in vars(compose.hashes(result["evidence"]["app_compose"].encode())).items():
        require(terms[name] == value, f"{name} of the terms")
    privacy = canonical.parse(result["evidence"]["app_compose"].encode())["cohort"]["privacy"]
    for name in ("epsilon_per_run", "epsilon_budget"):
        require(nano(privacy[name]) == nano(terms[name]), f"{name} of the terms")
    require(certificate["compose_hash"] == terms["compose_hash"], "compose_hash of the certificate")
    require(receipt["produced_at"] < certificate["not_after"], "end of the certificate")
    require(nano(receipt["epsilon"]) == nano(terms["epsilon_per_run"]), "epsilon")
    require(int(receipt["delta"]) == int(terms["delta_per_run"]), "delta")


def check_binding(result: Json) -> None:
    binding = result["binding"]
    require(binding["chain_id"] == result["chain_id"], "chain of the binding")
    require(binding["app"] == result["app"], "app of the binding")
    require(binding["run_id"] == result["receipt"]["run_id"], "run of the binding")
    require(binding["receipt_key"] == result["certificate"]["agent"], "receipt key of the binding")
    require(report_data(bytes.fromhex(result["evidence"]["quote"])) == bound(binding), "report data of the quote")


def bound(binding: Json) -> bytes:
    """What the report data must be, docs/spec/release.md."""
    names = ("app", "kms_root", "challenge", "run_id", "encryption_key_hash", "receipt_key")
    parts = [b"cohort-release/1", binding["chain_id"].to_bytes(8, "big"), *(unhex(binding[name]) for name in names)]
    if "gpu_evidence_hash" in binding:
        parts.append(unhex(binding["gpu_evidence_hash"]))
    return hashlib.sha512(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def report_data(quote: bytes) -> bytes:
    """The last 64 bytes of TD report 1.0, which begins after the header (version 4) or after type and size (5)."""
    body = {4: 48, 5: 54}[int.from_bytes(quote[:2], "little")]
    return quote[body + 520 : body + 584]
