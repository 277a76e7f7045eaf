"""The committed vectors of KMS root, release binding and compose hashes, recomputed."""

import dataclasses
import hashlib
import json
from typing import Any

import compose
import kms_root
import typed_data
from canonical import tohex, unhex
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


def test_id_lists() -> None:
    made = vector("terms/id-list.json")
    assert made["ids"] == sorted(made["ids"])
    assert made["hash"] == tohex(typed_data.keccak256(b"".join(map(unhex, made["ids"]))))


def test_compose_hashes() -> None:
    made = vector("compose/heart-disease.json")
    file = ROOT / made.pop("file")
    assert made == dataclasses.asdict(compose.hashes(file.read_bytes()))
