"""The three hashes of an app-compose file, docs/spec/compose.md."""

import hashlib
from dataclasses import dataclass

import canonical

LIMIT = 262144


@dataclass(frozen=True)
class Hashes:
    compose_hash: str
    recipe_hash: str
    output_schema_hash: str


def compose_hash(file: bytes) -> str:
    """Of the exact bytes, as dstack measures them."""
    return sha256(file)


def hashes(file: bytes) -> Hashes:
    """ValueError for a file that a reader refuses for its size or its JSON; further rules are not checked here."""
    if len(file) > LIMIT:
        raise ValueError("too large")
    recipe = canonical.parse(file)["cohort"]
    schema = canonical.form(recipe["output_schema"])
    return Hashes(compose_hash(file), sha256(canonical.form(recipe)), sha256(schema))


def sha256(data: bytes) -> str:
    return canonical.tohex(hashlib.sha256(data).digest())
