"""What the agent starts: reads the job from standard input, runs the script, writes its numbers to standard output.

The process is confined before Python starts. Nothing that the script prints goes anywhere; what it does wrong shows
in a rehearsal on synthetic data only.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from typing import Any, BinaryIO

from cohort import _run


def main() -> None:
    """One job."""
    # What whoever started the agent left open is none of the script's.
    os.closerange(3, 65536)
    result = os.dup(1)
    # Standard error is the null device already; standard output becomes it.
    os.dup2(2, 1)
    answer = _answer(sys.stdin.buffer)
    data = json.dumps(answer, allow_nan=False, sort_keys=True).encode()
    while data:
        data = data[os.write(result, data) :]
    # Not the interpreter's own end: no handler that the script registered runs after its numbers are out.
    os._exit(0)


def _answer(source: BinaryIO) -> dict[str, Any]:
    header = json.loads(source.readline())
    script = source.read(header["script_bytes"])
    try:
        _run.begin(
            _run.Run(
                epsilon=header["epsilon"],
                measures=header["measures"],
                tables={owner: _table(source) for owner in header["owners"]},
            )
        )
        code = compile(script, "recipe.py", "exec", dont_inherit=True)
        exec(code, {"__name__": "__main__", "__builtins__": __builtins__})
        values = _run.current().emitted
        if values is None:
            return _failure(header, "the script ended without emit_signed")
        return {"values": values}
    except BaseException:  # noqa: BLE001: sys.exit() in a script is a failure like any other
        return _failure(header, traceback.format_exc())


def _failure(header: dict[str, Any], text: str) -> dict[str, Any]:
    return {"values": {}, "error": text[-8192:]} if header["rehearsal"] else {"values": {}}


def _table(source: BinaryIO) -> Any:
    import pyarrow as pa

    # A stream's length comes first, so that a reader that looks ahead takes nothing of the next one.
    parts = []
    while True:
        length = int.from_bytes(source.read(8), "little")
        if length == 0:
            break
        parts.append(source.read(length))
    return pa.ipc.open_stream(io.BytesIO(b"".join(parts))).read_all()


if __name__ == "__main__":
    main()
