"""docs/moved.md: each new path exists, no old one does, and each new name is somewhere in the file beside it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES, NAMES = (ROOT / "docs/moved.md").read_text(encoding="utf-8").split("## Names")


def rows(text: str) -> list[list[list[str]]]:
    """The cells of a table's rows, each as the words in `backticks`."""
    cells = [[re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")] for line in text.splitlines()
             if line.startswith("| ")]
    return [row for row in cells if row[0]]


@pytest.mark.parametrize("old, new", rows(FILES), ids=lambda paths: paths[0])
def test_paths(old, new):
    assert new and all((ROOT / path).is_file() for path in new)
    assert not (ROOT / old[0]).is_file()


@pytest.mark.parametrize("row", [row for row in rows(NAMES) if row[2]], ids=lambda row: row[1][0])
def test_names(row):
    _, new, (path,) = row
    text = (ROOT / path).read_text(encoding="utf-8")
    assert all(re.search(rf"\b{name.split('.')[-1]}\b", text) for name in new)
