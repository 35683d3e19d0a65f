"""The Makefile's commands name files that exist, so that they follow when files move."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATHS = re.compile(r"(?<![\w/.])(?:tests|benchmarks|examples|minicnn)/[\w/.]+")


def missing(text: str) -> list[str]:
    """Paths of the project that a text names and that are not there."""
    return [path for path in PATHS.findall(text) if not (ROOT / path).exists()]


def test_every_path_exists():
    text = (ROOT / "Makefile").read_text()
    assert len(PATHS.findall(text)) > 15 and missing(text) == []


def test_a_path_that_moved_is_found():
    assert missing("pytest tests/backend tests/backend/test_cuda.py") == ["tests/backend/test_cuda.py"]
