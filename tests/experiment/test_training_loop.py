"""examples/training_loop.py: it learns, in seconds, and is short enough to be read at a glance."""

import re
import runpy
from pathlib import Path

PATH = Path(__file__).parents[2] / "examples/training_loop.py"


def test_it_learns(capsys):
    runpy.run_path(str(PATH))
    accuracies = [float(share) for share in re.findall(r"test accuracy ([\d.]+)%", capsys.readouterr().out)]
    assert len(accuracies) == 10 and accuracies[-1] > 75
    assert len([line for line in PATH.read_text().splitlines() if line]) <= 25
