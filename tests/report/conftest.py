"""A run of the small net, and what its report holds in English."""

from __future__ import annotations

import argparse

import pytest

from minicnn.report.build import gather
from minicnn.report.page import Words
from minicnn.report.run import read_run
from tests.helpers.small_run import small_trainer


def options_of(folder, **changed) -> argparse.Namespace:
    return argparse.Namespace(**{"which": str(folder), "out": None, "language": "en", "data": "synthetic", "images": 24,
                                 "device": "reference", "runs": "runs"} | changed)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    small_trainer(folder, images=16).fit(2)
    return folder


@pytest.fixture(scope="session")
def sections(run_folder) -> dict:
    """What the templates show; not to be changed."""
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    options = options_of(run_folder)
    return gather(read_run(options), options, Words("en"))
