"""Every file of test/vectors/eip712: hashes recomputed, signer recovered."""

import json
from pathlib import Path
from typing import Any

import pytest

import typed_data
from canonical import tohex, unhex
from conftest import VECTORS

FILES = sorted((VECTORS / "eip712").glob("*.json"))
DOMAIN_NAME = {"name": "DstackApp", "version": "1"}


def name(file: Path) -> str:
    return file.stem


def load(file: Path) -> dict[str, Any]:
    return json.loads(file.read_bytes())


def test_there_are_vectors_for_every_signed_type() -> None:
    """The types that docs/spec/sign-rpc.md names are among them."""
    types = {load(file)["typeString"] for file in FILES}
    assert types >= {
        "Receipt(bytes32 runId,bytes32 outputHash,bytes32 inputsHash,bytes32 evidenceHash,uint64 epsilon,uint64 delta,"
        "uint8 privacyProof,uint64 producedAt)",
        "AgentCertificate(address agent,bytes32 composeHash,uint64 notAfter)",
        "RunRequest(bytes32 proposalId,uint128 participants,address analyst,bytes32 nonce,uint64 deadline)",
    }


@pytest.mark.parametrize("file", FILES, ids=name)
def test_hashes(file: Path) -> None:
    vector = load(file)
    primary, types = vector["primaryType"], typed_data.parse_types(vector["typeString"])
    struct = typed_data.struct_hash(primary, types, vector["message"])
    assert typed_data.encode_type(primary, types) == vector["typeString"]
    assert tohex(typed_data.type_hash(primary, types)) == vector["typeHash"]
    assert tohex(typed_data.domain_separator(vector["domain"])) == vector["domainSeparator"]
    assert tohex(struct) == vector["structHash"]
    assert tohex(typed_data.digest(vector["domain"], struct)) == vector["digest"]
    assert vector["domain"].items() >= DOMAIN_NAME.items()


@pytest.mark.parametrize("file", FILES, ids=name)
def test_signer(file: Path) -> None:
    vector = load(file)
    digest, signature = unhex(vector["digest"]), unhex(vector["signature"])
    assert typed_data.address_of_key(unhex(vector["insecureTestKey"])) == vector["signer"]
    assert typed_data.recover(digest, signature) == vector["signer"]
    other = bytes([digest[0] ^ 1]) + digest[1:]
    assert typed_data.recover(other, signature) != vector["signer"]


@pytest.mark.parametrize("file", FILES, ids=name)
def test_signer_by_eth_account(file: Path) -> None:
    """A wallet library that knows nothing of this project recovers the signer from the typed data."""
    from eth_account import Account
    from eth_account.messages import encode_typed_data

    vector = load(file)
    types = {
        struct: [{"name": field, "type": kind} for kind, field in fields]
        for struct, fields in typed_data.parse_types(vector["typeString"]).items()
    }
    integers = {field["name"] for fields in types.values() for field in fields if "int" in field["type"]}

    def numbers(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: numbers(entry, name) for name, entry in value.items()}
        return int(value) if key in integers else value

    domain = {**vector["domain"], "chainId": int(vector["domain"]["chainId"])}
    message = encode_typed_data(domain, types, numbers(vector["message"]))
    signature = unhex(vector["signature"])
    assert Account.recover_message(message, signature=signature).lower() == vector["signer"]


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_field_is_signed(file: Path) -> None:
    vector = load(file)
    primary, types = vector["primaryType"], typed_data.parse_types(vector["typeString"])
    for field, value in vector["message"].items():
        changed = {**vector["message"], field: another(value)}
        assert tohex(typed_data.struct_hash(primary, types, changed)) != vector["structHash"], field


def another(value: Any) -> Any:
    if isinstance(value, dict):
        return {**value, "round": another(value["round"])}
    if value.startswith("0x"):
        return value[:-1] + ("0" if value[-1] == "1" else "1")
    return "0" if value == "1" else "1"


def test_other_forms_of_a_signature_are_refused() -> None:
    vector = load(FILES[0])
    digest, signature = unhex(vector["digest"]), unhex(vector["signature"])
    order = typed_data.SECP256k1.order
    high = (order - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")
    twin = signature[:32] + high + bytes([27 + 28 - signature[64]])
    for form in (twin, signature[:64], signature + b"\0", signature[:64] + bytes([signature[64] - 27]), bytes(65)):
        with pytest.raises(ValueError):
            typed_data.recover(digest, form)
