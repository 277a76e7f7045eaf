"""What the tests share: where things lie, and files that other steps leave behind."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "test" / "vectors"
