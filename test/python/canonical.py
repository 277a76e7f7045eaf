"""JSON, read strictly and written in the form of RFC 8785."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rfc8785


def parse(data: bytes) -> Any:
    """ValueError for what is not one JSON value in UTF-8, for a repeated name, for NaN and the infinities."""
    with bounded_nesting():
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse_constant)


@contextmanager
def bounded_nesting() -> Iterator[None]:
    """ValueError for deep nesting. py_ecc, which eth-account brings, raises the limit so far that the process would end."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        yield
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    finally:
        sys.setrecursionlimit(limit)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name twice in one object")
    return members


def refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def form(value: Any) -> bytes:
    """The RFC 8785 form; ValueError where it has none."""
    return rfc8785.dumps(value)


def is_integer(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def is_hex(value: Any, size: int) -> bool:
    """`0x` and `size` bytes in lower case."""
    return type(value) is str and re.fullmatch(r"0x[0-9a-f]{%d}" % (2 * size), value) is not None


def unhex(value: str) -> bytes:
    """Of a value for which `is_hex` holds; digits in upper case would pass here."""
    return bytes.fromhex(value[2:])


def tohex(value: bytes) -> str:
    return "0x" + value.hex()
