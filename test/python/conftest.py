"""What the tests share: where things lie, and the programs to compare with."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "test" / "vectors"
STUDY = ROOT / "test" / "data" / "heart-disease" / "app-compose.json"

COHORT = ROOT / "target" / "debug" / "cohort"
COHORT_KMS = ROOT / "target" / "debug" / "cohort-kms"


def needs(program: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not program.exists(), reason=f"skipped: {program.relative_to(ROOT)} is not built")


def cohort(*arguments: str | Path) -> Any:
    return json_of(COHORT, *arguments, "--json")


def json_of(program: Path, *arguments: str | Path) -> Any:
    """The JSON that a program prints; None where it prints none."""
    command = [str(program), *map(str, arguments)]
    output = subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL).stdout
    return json.loads(output) if output else None
