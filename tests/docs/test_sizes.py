"""Files and folders stay small enough to be read: a file of 400 lines, a folder of 18 files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES, FILES = 400, 18
SOURCES = {".py", ".cu", ".cuh"}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))
            if path.suffix in SOURCES and not {"__pycache__", "kernels"} & set(path.relative_to(ROOT).parts[1:])]


def test_no_file_is_longer():
    files = sources("minicnn", "kernels", "examples", "tests", "benchmarks")
    assert len(files) > 300
    assert [str(path) for path in files if len(path.read_text(encoding="utf-8").splitlines()) > LINES] == []


def test_no_folder_holds_more():
    crowded = Counter(path.parent for path in sources("minicnn"))
    assert len(crowded) > 15 and [str(folder) for folder, count in crowded.items() if count > FILES] == []
