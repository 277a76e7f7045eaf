"""Datasets of the run's owners, decrypted by the agent, in memory only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, overload

from cohort import _run
from cohort.errors import UnknownDatasetError

if TYPE_CHECKING:
    import pyarrow as pa


def owners() -> list[str]:
    """Owners whose data takes part in this run, in the recipe's order."""
    return list(_run.current().tables)


@overload
def unwrap(path: str | os.PathLike[str], into: Literal["pandas"] = ...) -> Any: ...
@overload
def unwrap(path: str | os.PathLike[str], into: Literal["arrow"]) -> pa.Table: ...
def unwrap(path: str | os.PathLike[str], into: Literal["pandas", "arrow"] = "pandas") -> Any:
    """One owner's table.

    ``path`` names the owner: its id, a path whose first part is its id (``hospital-A/cohort.tar``), or whose first
    part is how exactly one id ends (``A/cohort.tar``). No file is read: the agent has decrypted the dataset.
    """
    table = _run.current().tables[_owner(os.fspath(path))]
    if into == "arrow":
        return table
    if into != "pandas":
        raise ValueError(f"into must be 'pandas' or 'arrow', not {into!r}")
    return table.to_pandas()


def _owner(path: str) -> str:
    names = list(_run.current().tables)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    first = parts[0].removesuffix(".tar") if parts else ""
    if first in names:
        return first
    ending = [name for name in names if first and name.endswith(f"-{first}")]
    if len(ending) == 1:
        return ending[0]
    raise UnknownDatasetError(f"{path!r} names no owner of this run; they are {', '.join(names)}")
