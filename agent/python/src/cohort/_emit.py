"""The one way out: numbers by the names that the recipe declares."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from cohort import _model, _run
from cohort.errors import EmitError


def emit_signed(obj: Any, *, epsilon: float | str | Decimal | None = None) -> None:
    """Hands the result to the guard, which clamps, rounds, adds noise, signs and posts. Once a run.

    ``epsilon``, where given, must be what the recipe declares for one run: owners approved that and no other.
    """
    run = _run.current()
    if run.emitted is not None:
        raise EmitError("a run emits once; put all numbers into one dict")
    if epsilon is not None and not _same(epsilon, run.epsilon):
        raise EmitError(f"the owners approved epsilon {run.epsilon} for one run; give that or leave it out")
    named = _named(obj, run.measures)
    missing = [name for name in run.measures if name not in named]
    if missing:
        raise EmitError(f"the recipe also declares {', '.join(missing)}")
    run.emitted = {name: _numbers(named[name], name, labels) for name, labels in run.measures.items()}


def _same(given: float | str | Decimal, declared: str) -> bool:
    try:
        return Decimal(str(given)) == Decimal(declared)
    except InvalidOperation:
        return False


def _named(obj: Any, measures: Mapping[str, list[str]]) -> Mapping[str, Any]:
    """The object as measure name to value."""
    if isinstance(obj, io.BytesIO):
        obj = obj.getvalue()
    if isinstance(obj, (bytes, bytearray, memoryview)):
        return _checked(_model.arrays(bytes(obj)), measures)
    if isinstance(obj, Mapping):
        return _checked(obj, measures)
    estimator = _model.of_estimator(obj)
    if estimator is not None:
        # All forms of the coefficients are offered; the recipe says which it releases.
        return {name: value for name, value in estimator.items() if name in measures}
    if type(obj).__name__ == "DataFrame" and hasattr(obj, "iloc") and len(measures) != 1:
        return _checked(_frame(obj), measures)
    if type(obj).__name__ == "Series" and hasattr(obj, "to_dict") and set(map(str, obj.index)) == set(measures):
        return {str(name): value for name, value in obj.to_dict().items()}
    if len(measures) == 1:
        return {next(iter(measures)): obj}
    raise EmitError(f"give a dict with {', '.join(measures)}")


def _frame(frame: Any) -> Mapping[str, Any]:
    """A frame of one row is its columns; a longer one has a column for each measure, in the order of the labels."""
    columns = {str(name): frame[name] for name in frame.columns}
    if len(frame) == 1:
        return {name: column.iloc[0] for name, column in columns.items()}
    return columns


def _checked(found: Mapping[Any, Any], measures: Mapping[str, list[str]]) -> Mapping[str, Any]:
    names = {str(name): value for name, value in found.items()}
    more = [name for name in names if name not in measures]
    if more:
        raise EmitError(f"the recipe declares {', '.join(measures)} and no more")
    return names


def _numbers(value: Any, name: str, labels: list[str]) -> list[float | None]:
    """The numbers of one measure in the order of its labels."""
    if type(value).__name__ in ("Series", "DataFrame") and hasattr(value, "to_numpy"):
        if labels and hasattr(value, "index") and set(map(str, value.index)) == set(labels):
            value = {str(label): number for label, number in value.squeeze().to_dict().items()}
        else:
            value = value.to_numpy()
    if isinstance(value, Mapping):
        by_label = {str(label): number for label, number in value.items()}
        if set(by_label) != set(labels):
            raise EmitError(f"{name}: the recipe declares the labels {', '.join(labels)}")
        return [_number(by_label[label]) for label in labels]
    if hasattr(value, "to_pylist"):
        value = value.to_pylist()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    flat = list(_flat(value))
    if len(flat) != max(1, len(labels)):
        raise EmitError(f"{name}: the recipe declares {max(1, len(labels))} numbers")
    return [_number(number) for number in flat]


def _flat(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, (str, bytes)):
        return None
    number = float(value)
    return number if math.isfinite(number) else None
