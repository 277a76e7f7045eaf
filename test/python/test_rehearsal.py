"""The rehearsal record by eth-account, from docs/spec/rehearsal.md alone."""

import hashlib
import json
from pathlib import Path

import pytest
import rfc8785
from eth_account import Account
from eth_account.messages import encode_typed_data

RECORD = json.loads((Path(__file__).parent / "../vectors/rehearsal/heart-disease.json").read_text())
TYPES = {
    "Rehearsal": [
        {"name": "composeHash", "type": "bytes32"},
        {"name": "recipeHash", "type": "bytes32"},
        {"name": "outputHash", "type": "bytes32"},
        {"name": "rowsPerOwner", "type": "uint32"},
        {"name": "seed", "type": "uint64"},
        {"name": "durationSeconds", "type": "uint64"},
    ]
}


def signer(record):
    message = {
        "composeHash": record["compose_hash"],
        "recipeHash": record["recipe_hash"],
        "outputHash": hashlib.sha256(rfc8785.dumps(record["payload"])).digest(),
        "rowsPerOwner": record["rows_per_owner"],
        "seed": record["seed"],
        "durationSeconds": record["duration_seconds"],
    }
    typed = encode_typed_data({"name": "Cohort rehearsal", "version": "1"}, TYPES, message)
    return Account.recover_message(typed, signature=record["signature"]).lower()


def test_the_analyst_s_signature_recovers():
    assert RECORD["format"] == "cohort-rehearsal/1"
    assert signer(RECORD) == RECORD["analyst"].lower()


@pytest.mark.parametrize("field", ["rows_per_owner", "seed", "duration_seconds"])
def test_every_number_is_signed(field):
    assert signer({**RECORD, field: RECORD[field] + 1}) != RECORD["analyst"].lower()
