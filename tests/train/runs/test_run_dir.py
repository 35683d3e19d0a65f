"""Which checkpoint is meant."""

from __future__ import annotations

import os

import pytest

from minicnn.errors import CheckpointError
from minicnn.train.runs.run_dir import BEST, LAST, find_checkpoint


def test_nothing_named_is_the_newest_run(tmp_path):
    """By the time of its last checkpoint, not by its name."""
    for age, name in ((300, "b"), (100, "a"), (200, "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / LAST).write_bytes(b"")
        (tmp_path / name / BEST).write_bytes(b"")
        os.utime(tmp_path / name / LAST, (1e9 - age, 1e9 - age))
    assert find_checkpoint(tmp_path, "", BEST) == tmp_path / "a" / BEST
    assert find_checkpoint(tmp_path, "c", BEST) == find_checkpoint("elsewhere", str(tmp_path / "c"), BEST)
    with pytest.raises(CheckpointError, match="no such run"):
        find_checkpoint(tmp_path, "d", BEST)
    with pytest.raises(CheckpointError, match="no run to resume"):
        find_checkpoint(tmp_path / "a", "", BEST)
