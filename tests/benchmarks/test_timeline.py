"""The timeline of a step: which layers are on it, in which order, and that the net is unchanged."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import timeline
from timeline import draw_timeline

from minicnn.train.sgd import SGD
from minicnn.train.watch.timeline import HostClock, step_of
from tests.helpers.small_run import small_net


@pytest.fixture
def bars():
    net = small_net("reference")
    images = np.random.default_rng(0).standard_normal((4, 24, 24, 3)).astype("f4")
    found = step_of(net, images, np.array([0, 1, 2, 3]), SGD(net.params, lr=0.01), HostClock())
    assert not any({"forward", "backward"} & vars(node.layer).keys() for node in net.nodes)
    return found


def test_every_layer_is_on_it_once_each_way(bars):
    forward = [name for name, _, row, *_ in bars if row == "forward"]
    assert forward == ["conv1", "norm1", "pool1", "fc2", "drop2", "fc3", "loss"]
    assert [name for name, _, row, *_ in bars if row == "backward"] == forward[::-1]
    assert [name for name, _, row, *_ in bars if row == "update"] == ["update"]


def test_bars_follow_each_other_from_zero(bars):
    assert bars[0][3] == 0
    times = [time for *_, begin, end in bars for time in (begin, end)]
    assert times == sorted(times) and times[-1] > 0


def test_it_is_drawn(bars, tmp_path):
    from PIL import Image
    picture = Image.open(draw_timeline(bars, "a machine", tmp_path / "timeline.png"))
    assert picture.width == 1350 and len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_help_and_bad_numbers():
    def call(*arguments):
        return subprocess.run([sys.executable, timeline.__file__, *arguments], capture_output=True, text=True)

    assert "usage:" in call("--help").stdout
    assert "--batch must be at least 1" in call("--batch", "0").stderr
