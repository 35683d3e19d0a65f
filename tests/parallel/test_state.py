"""State under each parallel scheme: equal on all ranks, and that of a single process."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import MinicnnError
from minicnn.graph import Net
from minicnn.init import Normal
from minicnn.layers import Linear
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.plan import Node
from minicnn.train.sgd import SGD
from tests.helpers.running_mean import RunningMean


def net(dtype="float64") -> Net:
    """Running means of the images, of sharded channels, of their concatenation, of hidden units, and of the logits."""
    b = Builder((5, 5, 4), name="stateful")
    b.layer("of_image", RunningMean(4))
    left = b.conv("conv1", 4, 3, padding=1, init=Normal(0.2))
    b.layer("of_conv", RunningMean(4))
    near = b.relu("relu1")
    far = b.conv("conv2", 4, 3, padding=1, init=Normal(0.2), input=left)
    b.layer("of_both", RunningMean(8), b.concat("both", [near, far]))
    b.flatten("flat")
    b.linear("fc1", 6, init=Normal(0.1))
    b.layer("of_units", RunningMean(6))
    b.relu("relu2")
    b.linear("fc2", 3, init=Normal(0.5))
    b.layer("of_logits", RunningMean(3))
    b.loss("loss")
    return b.net(device="reference", dtype=dtype)


def train(trained: Net, x, labels, steps: int = 5) -> None:
    sgd = SGD(trained.params, lr=0.05)
    rows = trained.ranks.local_rows(len(x))
    for step in range(steps):
        trained.loss(x[rows], labels[rows], sample_ids=np.arange(len(x))[rows], epoch=step)
        trained.backward()
        sgd.step(trained.ops)


def batch():
    rng = np.random.default_rng(3)
    return rng.standard_normal((8, 5, 5, 4)) + 1, rng.integers(0, 3, 8)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("scheme", ["columns", "data", "hybrid"])
def test_ranks_hold_the_state_of_a_single_process(scheme, size):
    """A running mean is linear, so the mean over the ranks equals that over all images, up to rounding."""
    x, labels = batch()
    alone = net()
    train(alone, x, labels)
    if (scheme, size) != ("data", 4) and 6 % size and scheme != "data":
        pytest.skip("four ranks do not divide six units")

    def body(comm):
        own = SCHEMES[scheme](net(), comm)
        train(own, x, labels)
        return own.ranks.gather(own.arrays()), {name: array.copy() for name, array in own.state.items()}, own.num_params

    results = run_local(size, body)
    whole = results[0][0]
    assert whole.keys() == alone.arrays().keys() and results[0][2] == alone.num_params
    for name, array in alone.arrays().items():
        np.testing.assert_allclose(whole[name], array, rtol=1e-9, atol=1e-12, err_msg=name)
    assert abs(whole["state/of_conv.mean"]).max() > 1e-3
    if scheme == "data":
        for _, state, _ in results[1:]:
            for name, array in state.items():
                np.testing.assert_array_equal(array, results[0][1][name])   # bit-identical


def test_a_checkpoint_is_loaded_by_any_number_of_ranks():
    x, labels = batch()
    alone = net()
    train(alone, x, labels)
    arrays = {name: np.array(array) for name, array in alone.arrays().items()}

    def body(comm):
        own = SCHEMES["columns"](net(), comm)
        own.load_arrays(arrays)
        return own.ranks.gather(own.arrays())

    for name, array in run_local(2, body)[0].items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)


def test_without_averaging_ranks_differ(monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr("minicnn.parallel.parallel_net.ParallelNet._average_state", lambda self: None)
    x, labels = batch()

    def body(comm):
        own = SCHEMES["data"](net(), comm)
        train(own, x, labels, 1)
        return own.state["of_conv.mean"].copy()

    first, second = run_local(2, body)
    assert abs(first - second).max() > 1e-6


def test_descriptions_are_those_of_the_whole_network():
    assert run_local(2, lambda comm: SCHEMES["columns"](net(), comm).description())[1] == net().description()


def tied() -> Net:
    layer, inputs = Linear(4, 4, init=Normal(0.5)), {"x": (4,)}
    return Net([Node("a", layer, ("x",)), Node("b", layer, ("a",))], inputs, device="reference", dtype="float64")


def test_tied_layers():
    """They stay tied if each rank has all weights, and are rejected if weights would be split."""
    assert run_local(2, lambda comm: SCHEMES["data"](tied(), comm)["a"] is not None)
    assert all(run_local(2, lambda comm: (lambda n: n["a"] is n["b"])(SCHEMES["data"](tied(), comm))))
    with pytest.raises(MinicnnError, match="shares its weights with another layer"):
        run_local(2, lambda comm: SCHEMES["columns"](tied(), comm))


def test_calling_a_network_of_ranks_is_its_forward():
    x, _ = batch()
    even = np.asarray(x[:4])
    for logits in run_local(2, lambda comm: SCHEMES["columns"](net(), comm)(even)):
        np.testing.assert_allclose(logits, net()(even), rtol=1e-9, atol=1e-12)
