"""Model files in memory: named arrays out of safetensors or NumPy's npz."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from cohort.errors import EmitError

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


def arrays(content: bytes) -> dict[str, Any]:
    """Named arrays of a model file."""
    if content.startswith(b"PK\x03\x04"):
        import numpy as np

        # Without pickles: a model is numbers, not code.
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    return _safetensors(content)


def _safetensors(content: bytes) -> dict[str, Any]:
    import numpy as np

    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        body = memoryview(content)[8 + length :]
        found: dict[str, Any] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            found[name] = np.frombuffer(body[begin:end], dtype=_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise EmitError("a model file must be safetensors or npz") from error


def of_estimator(model: Any) -> Mapping[str, Any] | None:
    """``coef_`` and ``intercept_`` of a fitted linear model, as one array with the intercept first."""
    if not (hasattr(model, "coef_") and hasattr(model, "intercept_")):
        return None
    import numpy as np

    intercept, slopes = np.ravel(model.intercept_), np.ravel(model.coef_)
    return {"intercept": intercept, "coef": slopes, "coefficients": np.concatenate([intercept, slopes])}
