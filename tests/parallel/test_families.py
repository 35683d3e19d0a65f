"""Reduced nets of the families on two ranks: branches, shortcuts, auxiliary losses, batch statistics of both."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.errors import ConfigError
from minicnn.models.registry import build
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.train.sgd import SGD
from tests.models import families
from tests.models.families import BATCH, CASES, CLASSES

STEPS = 2
EVEN = {"zfnet-spp": {"kernels": (4, 6, 6, 8, 4), "fc": (10, 8)}, "vgg-c": {"fc": 10}, "googlenet": {"aux_fc": 10},
        "resnet50": {"widths": (4, 6, 6, 8)}}                       # of units and kernels, so that two ranks share them
SYNCHRONISED = {"vgg-a-bn", "googlenet-torchvision", "resnet18-a", "resnet50", "mobilenet"}


def make(case: str):
    """The net in float64, on twice as many images as in the cases."""
    knobs = CASES[case].knobs | EVEN.get(case, {}) | ({"sync": True} if case in SYNCHRONISED else {})
    return families.load(build(CASES[case].model, num_classes=CLASSES, device="reference", dtype="float64", **knobs))


def train(net) -> list[float]:
    x = 4 * families.uniform("images", (2 * BATCH, *net.input_shape))
    labels, rows, losses, sgd = np.arange(2 * BATCH) % CLASSES, net.ranks.local_rows(2 * BATCH), [], SGD(net, lr=0.01)
    for step in range(STEPS):
        losses.append(net.loss(x[rows], labels[rows], sample_ids=np.arange(2 * BATCH)[rows], epoch=step))
        net.backward()
        sgd.step()
    return losses


def on_ranks(case: str, scheme: str) -> list:
    """Of both ranks: losses, and the whole weights and state (on rank 0)."""
    def body(comm):
        net = SCHEMES[scheme](make(case), comm)
        return train(net), net.ranks.gather(net.arrays())

    return run_local(2, body)


@pytest.mark.parametrize(("case", "scheme"), [
    ("googlenet", "data"), ("googlenet", "hybrid"), ("vgg-c", "hybrid"), ("zfnet-spp", "columns"), ("resnet50", "data"),
    ("resnet50", "columns"), ("resnet18-a", "data"), ("vgg-a-bn", "data"), ("squeezenet", "data"),
    *(pytest.param(case, "data", marks=pytest.mark.slow) for case in ("mobilenet", "googlenet-torchvision"))])
def test_two_ranks_equal_one(case, scheme):
    alone = make(case)
    start = {name: array.copy() for name, array in alone.arrays().items()}
    losses, found = train(alone), on_ranks(case, scheme)
    for rank in found:
        np.testing.assert_allclose(rank[0], losses, rtol=1e-9)
    moved = max(np.abs(array - start[name]).max() for name, array in alone.arrays().items())
    for name, array in alone.arrays().items():
        assert np.abs(found[0][1][name] - array).max() <= 1e-9 * moved, name


@pytest.mark.parametrize(("case", "message"), [
    ("resnet18-a", "layer 'conv3_1_shortcut' of network 'resnet18-a': there is no rule for splitting Subsample"),
    ("vgg-c", "layer 'conv2_1' of network 'vgg-c': 2 ranks do not divide its 5 kernels")])
def test_what_cannot_be_split_by_channels_is_named(case, message):
    def body(comm):
        with pytest.raises(ConfigError) as error:
            SCHEMES["columns"](make(case), comm)
        return str(error.value)

    for said in run_local(2, body):
        assert message in said and "\n" not in said
