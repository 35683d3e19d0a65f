"""Files that minicnn 0.1.0 wrote (tests/vectors/v0_1, see make.py there) still load, and its runs still resume."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.graphs import small
from tests.helpers.small_run import small_trainer

OLD = Path(__file__).parents[2] / "vectors/v0_1"
SETTINGS, EPOCHS = {"images": 48, "save_every": 2}, 3            # of make.py
TOLERANCE = 1e-5                                                 # of an array's maximum


def error(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.fixture
def resumed(tmp_path):
    """A copy of the old run, resumed within its second epoch."""
    return small_trainer(shutil.copytree(OLD / "run", tmp_path / "run"), **SETTINGS).resume()


def test_a_saved_net(tmp_path):
    expected = np.load(OLD / "net_expected.npz")
    net = small(device="reference", dtype="float32", seed=7)
    assert error(net.forward(expected["x"]), expected["logits"]) > 0.1            # with weights of its own
    net.load(OLD / "net.safetensors")
    assert error(net.forward(expected["x"]), expected["logits"]) < TOLERANCE


def test_the_parts_of_a_checkpoint():
    for name in ("last", "best"):
        saved = load_checkpoint(OLD / f"run/{name}.safetensors")
        assert saved.params.keys() == saved.velocities.keys() == {"conv1.w", "conv1.b", "fc2.w", "fc2.b", "fc3.w",
                                                                  "fc3.b"}
        assert saved.data.keys() == {"mean", "eigenvalues", "eigenvectors", "start"} and saved.state == {}
        assert saved.meta["format"] == 1


def test_where_a_resumed_run_is(resumed):
    assert (resumed.epoch, resumed.step) == (1, 3)
    assert resumed.state.schedule.state == {"best": 0.5, "waited": 0, "drops": 0}
    assert resumed.state.best == load_checkpoint(OLD / "run/last.safetensors").meta["best"]
    assert resumed.state.best["epoch"] == 1 and resumed.state.best["top1"] == 0.5
    saved = load_checkpoint(OLD / "run/last.safetensors")
    for name, param in resumed.net.params.items():
        np.testing.assert_array_equal(param.data, saved.params[name])
        np.testing.assert_array_equal(resumed.sgd.velocities[name], saved.velocities[name])


def test_a_resumed_run_ends_with_the_weights_it_had_then(resumed):
    expected = np.load(OLD / "run_expected.npz")
    assert not resumed.fit(EPOCHS).interrupted
    saved = load_checkpoint(resumed.last_path)
    found = saved.params | {f"velocity/{name}": array for name, array in saved.velocities.items()}
    assert found.keys() == set(expected.files)
    for name, array in found.items():
        assert error(array, expected[name]) < TOLERANCE, name
    stopped = load_checkpoint(OLD / "run/last.safetensors").params
    assert min(error(array, expected[name]) for name, array in stopped.items()) > 100 * TOLERANCE    # a real difference
