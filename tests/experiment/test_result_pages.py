"""The pages of results in examples/results are what their runs wrote: the Markdown follows from the JSON."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from minicnn.experiment import page as training_runs
from minicnn.train.runs.results import add_to_page
from tests.helpers.small_run import load_example

RESULTS = Path(__file__).parents[2] / "examples" / "results"


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("*.json")))
def test_nothing_is_by_hand(name, tmp_path):
    page = tmp_path / name
    shutil.copy(RESULTS / f"{name}.json", tmp_path)
    if name == "photographs":
        order, lines = (lambda report: report["command"]), training_runs.page
    else:
        example = load_example(name)
        order = example.order
        lines = partial(example.page, picture=f"{name}.png") if name == "cifar10_descendants" else example.page
    add_to_page(page, [], order, lines)
    assert page.with_suffix(".md").read_text() == (RESULTS / f"{name}.md").read_text()
