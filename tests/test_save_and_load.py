"""Weights on disk: safetensors, written atomically; files of other networks are rejected."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from safetensors import safe_open

from minicnn.builder import Builder
from minicnn.errors import CheckpointError
from tests.helpers.graphs import images, same, small


def weights(net) -> dict[str, np.ndarray]:
    return {name: param.data.copy() for name, param in net.params.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(tmp_path, dtype):
    net, other = small(dtype=dtype, seed=1), small(dtype=dtype, seed=2)
    x, _ = images(net)
    assert (net.forward(x) != other.forward(x)).any()
    net.save(tmp_path / "net.safetensors")
    other.load(tmp_path / "net.safetensors")
    same(weights(other), weights(net))
    np.testing.assert_array_equal(net.forward(x), other.forward(x))
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]        # no temporary file is left


def test_loading_keeps_precision_and_memory_of_the_network(tmp_path):
    """A float64 network reads float32 weights into the same arrays, which an optimiser may reference."""
    single, double = small(dtype="float32", seed=1), small(dtype="float64", seed=2)
    arrays = {name: param.data for name, param in double.params.items()}
    single.save(tmp_path / "net.safetensors")
    double.load(tmp_path / "net.safetensors")
    for name, param in double.params.items():
        assert param.data is arrays[name] and param.data.dtype == "float64"
        np.testing.assert_array_equal(param.data, single.params[name].data)


def test_metadata_is_readable(tmp_path):
    small().save(tmp_path / "net.safetensors", {"epoch": "3"})
    with safe_open(tmp_path / "net.safetensors", framework="numpy") as file:
        assert file.metadata()["epoch"] == "3" and file.metadata()["net"] == "small"
        assert set(file.keys()) == set(small().params)


def other_net(**sizes):
    b = Builder((9, 9, 3), name="small")
    b.conv("conv1", sizes.get("channels", 4), 3)
    b.flatten()
    b.linear(sizes.get("last", "fc2"), 5)
    return b.net(device="reference")


@pytest.mark.parametrize(("other", "message"), [
    (other_net(channels=3), r"of another network: 'conv1.w' is \(3, 3, 3, 3\) there and \(3, 3, 3, 4\) here"),
    (other_net(last="out"), r"of another network: it has no 'fc2.w'"),
    (small("reference", "float32"), "of another network: "),
])
def test_weights_of_another_network_are_rejected(tmp_path, other, message):
    net = other_net()
    before = weights(net)
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=message) as error:
        net.load(tmp_path / "other.safetensors")
    assert "other.safetensors" in str(error.value)
    same(weights(net), before)


def test_damaged_files_are_rejected(tmp_path):
    net = small()
    before = weights(net)
    path = tmp_path / "net.safetensors"
    with pytest.raises(CheckpointError, match="net.safetensors: no such checkpoint"):
        net.load(path)
    net.save(path)
    complete = path.read_bytes()
    for damaged in (b"", complete[:5], complete[:100], complete[:-1], b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="net.safetensors: (the file is empty|cut short or damaged)"):
            net.load(path)
    same(weights(net), before)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    net, path = small(), tmp_path / "net.safetensors"
    net.save(path)
    complete = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="net.safetensors: cannot be written: No space left on device"):
        net.save(path)
    assert path.read_bytes() == complete and os.listdir(tmp_path) == ["net.safetensors"]


def test_a_checkpoint_of_a_run_can_be_loaded(tmp_path):
    """Besides the weights it holds velocities and the mean image, under names with a slash."""
    from safetensors.numpy import load_file, save_file
    net, other = small(seed=1), small(seed=2)
    net.save(tmp_path / "net.safetensors")
    tensors = load_file(tmp_path / "net.safetensors")
    save_file({**tensors, "velocity/conv.w": np.zeros(3), "data/mean": np.zeros(2)}, tmp_path / "last.safetensors")
    other.load(tmp_path / "last.safetensors")
    same(weights(other), weights(net))
