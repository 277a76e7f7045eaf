"""What the tests share: where things lie, and the command `cohort` to compare with."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "test" / "vectors"
STUDY = ROOT / "test" / "data" / "heart-disease" / "app-compose.json"

COHORT = ROOT / "target" / "debug" / "cohort"
needs_cohort = pytest.mark.skipif(not COHORT.exists(), reason="skipped: target/debug/cohort is not built")


def cohort(*arguments: str | Path) -> Any:
    """The JSON that the command prints; None where it prints none."""
    command = [str(COHORT), *map(str, arguments), "--json"]
    output = subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL).stdout
    return json.loads(output) if output else None
