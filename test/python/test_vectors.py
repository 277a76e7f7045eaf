"""The committed vectors of KMS root, release binding and compose hashes, recomputed."""

import dataclasses
import hashlib
import json
from typing import Any

import compose
import kms_root
import result
import typed_data
from canonical import form, tohex, unhex
from conftest import ROOT, VECTORS

TYPES = typed_data.parse_types("KmsRoot(uint32 epoch,bytes sealingKey)")


def vector(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def test_kms_roots() -> None:
    made = vector("kms-root/roots.json")
    secret = unhex("0x" + made["root_secret"])
    assert len(made["epochs"]) == 3
    for entry in made["epochs"]:
        stated = entry["statement"]
        sealing_key = kms_root.sealing_key(secret, stated["epoch"]).public_key()
        assert stated["sealing_key"] == tohex(sealing_key)
        assert entry["key_id"] == tohex(hashlib.sha256(sealing_key).digest())
        assert stated["root"] == typed_data.address_of_key(kms_root.signing_key(secret, stated["epoch"]))
        struct = typed_data.struct_hash("KmsRoot", TYPES, {"epoch": stated["epoch"], "sealingKey": tohex(sealing_key)})
        domain = {
            "name": "Cohort KMS",
            "version": "1",
            "chainId": stated["chain_id"],
            "verifyingContract": stated["registry"],
        }
        assert typed_data.recover(typed_data.digest(domain, struct), unhex(stated["signature"])) == stated["root"]
        parts = [
            b"cohort-kms-evidence/1",
            stated["chain_id"].to_bytes(8, "big"),
            unhex(stated["registry"]),
            stated["epoch"].to_bytes(4, "big"),
            unhex(stated["root"]),
            unhex(entry["key_id"]),
        ]
        prefixed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        assert entry["report_data"] == hashlib.sha512(prefixed).hexdigest()


def test_report_data() -> None:
    made = vector("release/report-data.json")
    binding = made["binding"]
    parts = [
        b"cohort-release/1",
        binding["chain_id"].to_bytes(8, "big"),
        *(unhex(binding[name]) for name in ("app", "kms_root", "challenge", "run_id", "encryption_key_hash")),
        unhex(binding["receipt_key"]),
    ]
    prefixed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert made["report_data"] == hashlib.sha512(prefixed).hexdigest()


def prefixed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def test_gpu_binding() -> None:
    made = vector("gpu/binding.json")
    binding = made["binding"]
    without = {name: value for name, value in binding.items() if name != "gpu_evidence_hash"}
    nonce = hashlib.sha256(prefixed(b"cohort-gpu-nonce/1", result.bound(without))).hexdigest()
    assert made["nonce"] == nonce
    parts = [b"cohort-gpu-evidence/1"]
    for gpu in made["gpu"]:
        parts += [gpu["architecture"].encode(), bytes.fromhex(gpu["report"])]
        parts += [bytes.fromhex(certificate) for certificate in gpu["certificates"]]
    assert len(made["gpu"]) == 2
    assert binding["gpu_evidence_hash"] == "0x" + hashlib.sha256(prefixed(*parts)).hexdigest()
    assert made["report_data"] == result.bound(binding).hex()


def test_gpu_golden_values() -> None:
    made = vector("gpu/golden.json")
    signed = made["signed"]
    assert made["list_hash"] == tohex(hashlib.sha256(form(signed["golden"])).digest())
    types = typed_data.parse_types("GpuGoldenValues(bytes32 listHash)")
    struct = typed_data.struct_hash("GpuGoldenValues", types, {"listHash": made["list_hash"]})
    registry = made["registry"]
    domain = {"name": "Cohort KMS", "version": "1", "chainId": made["chain_id"], "verifyingContract": registry}
    assert typed_data.recover(typed_data.digest(domain, struct), unhex(signed["signature"])) == signed["signer"]


def test_id_lists() -> None:
    made = vector("terms/id-list.json")
    assert made["ids"] == sorted(made["ids"])
    assert made["hash"] == tohex(typed_data.keccak256(b"".join(map(unhex, made["ids"]))))


def test_compose_hashes() -> None:
    made = vector("compose/heart-disease.json")
    file = ROOT / made.pop("file")
    assert made == dataclasses.asdict(compose.hashes(file.read_bytes()))
