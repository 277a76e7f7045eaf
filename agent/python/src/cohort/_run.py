"""The run that this process was started for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cohort.errors import NotInRunError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Run:
    """What the agent handed over, and what the script emitted."""

    #: Cost of the run as the recipe declares it, a decimal text.
    epsilon: str
    #: Labels of each emitted measure, none for a single number.
    measures: dict[str, list[str]]
    #: One table for each owner who takes part.
    tables: dict[str, pa.Table]
    #: Numbers by measure, in the order of its labels, once emitted.
    emitted: dict[str, list[float | None]] | None = field(default=None)


_current: Run | None = None


def begin(run: Run) -> None:
    """Makes ``run`` the one that the script works in."""
    global _current
    _current = run


def current() -> Run:
    """The run, or an error outside of one."""
    if _current is None:
        raise NotInRunError(
            "there is no run: a recipe's script is started by the agent; try it with `cohort recipe rehearse`"
        )
    return _current
