"""Every constant that the AlexNet paper prints, where it takes effect: in the calls of operations of a step by `PAPER`.

That a default has the right value says nothing where it is not used.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

from minicnn.backend.ops import OPS
from minicnn.data.input import InputPipeline
from minicnn.data.procedural import procedural_sets
from minicnn.evaluate.evaluate import evaluate
from minicnn.models.alexnet import alexnet
from minicnn.train.loop import Trainer
from minicnn.train.recipe import PAPER

CROP, IMAGES = 224, 4


class Calls:
    """The operations of `net`, with what they were called with."""

    def __init__(self, net):
        self.all: list[tuple[str, tuple, dict]] = []
        net.ops = copy.copy(net.ops)
        for name in (name for names in OPS.values() for name in names):
            setattr(net.ops, name, self._noted(name, getattr(net.ops, name)))

    def _noted(self, name, operation):
        def call(*arrays, **options):
            self.all.append((name, arrays, options))
            return operation(*arrays, **options)
        return call

    def options(self, operation: str, *names: str) -> list[tuple]:
        """The values of these options, call by call."""
        return [tuple(options[name] for name in names) for name, _, options in self.all if name == operation]

    def shapes(self, operation: str, place: int) -> list[tuple[int, ...]]:
        return [arrays[place].shape for name, arrays, _ in self.all if name == operation]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """A trainer by the recipe of the paper with small fully connected layers, and sets just large enough."""
    train, val, _ = procedural_sets((128, IMAGES, 1), size=256)
    net = alexnet(num_classes=4, device="cpu", fc=256)
    return Trainer(net, PAPER, train, val, tmp_path_factory.mktemp("run") / "paper", progress=False, say=None)


@pytest.fixture(scope="module")
def step(trainer):
    """The calls of one step on a few images, and of an evaluation with ten crops."""
    net = trainer.net
    calls = Calls(net)
    mean = np.zeros((256, 256, 3), np.float32)
    x = np.random.default_rng(0).normal(0, 60, (IMAGES, CROP, CROP, 3)).astype(np.float32)
    net.loss(x, np.arange(IMAGES), sample_ids=np.arange(IMAGES), epoch=0)
    net.backward()
    trainer.optimiser.lr = trainer.state.learning_rate(0)
    trainer.optimiser.step(net.ops)
    evaluate(net, trainer.val, InputPipeline(net, PAPER.preprocess, mean), batch=IMAGES, ten_crop=True, progress=False)
    return calls


def test_convolutions_and_pooling(step):
    """Sections 3.2, 3.4, 3.5: kernels, strides, groups; overlapping windows of 3 every 2."""
    assert step.shapes("conv_forward", 1)[:5] == [(11, 11, 3, 96), (5, 5, 48, 256), (3, 3, 256, 384), (3, 3, 192, 384),
                                                  (3, 3, 192, 256)]
    assert step.options("conv_forward", "stride", "groups")[:5] == [((4, 4), 1), ((1, 1), 2), ((1, 1), 1), ((1, 1), 2),
                                                                    ((1, 1), 2)]
    for direction in ("forward", "backward"):
        assert step.options(f"maxpool_{direction}", "kernel", "stride")[:3] == 3 * [((3, 3), (2, 2))]


def test_normalisation(step):
    """Section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75, each GPU by itself."""
    for direction in ("forward", "backward"):
        constants = step.options(f"lrn_{direction}", "n", "k", "alpha", "beta", "groups")
        assert constants[:2] == 2 * [(5, 2.0, 1e-4, 0.75, 2)] and set(constants) == {constants[0]}


def test_dropout(step):
    """Section 4.2: 0.5 in two layers, and at test time outputs times 0.5."""
    for direction in ("forward", "backward"):
        assert step.options(f"dropout_{direction}", "rate", "scale") == 2 * [(0.5, 1.0)]
    assert set(step.options("scale_forward", "factor")) == {(0.5,)}


def test_update(step, trainer):
    """Section 5: momentum 0.9, weight decay 0.0005 and learning rate 0.01 for all layers, batches of 128."""
    updates = step.options("sgd_step", "lr", "momentum", "decay", "lr_in_velocity", "nesterov", "decoupled")
    assert updates == len(trainer.net.params) * [(0.01, 0.9, 0.0005, True, False, False)]
    assert len(trainer.net.params) == 16
    assert trainer.loader.batch == 128
    assert step.options("softmax_cross_entropy_backward", "scale") == [(1 / IMAGES,)]


def test_the_learning_rate_is_divided_by_ten_three_times(trainer):
    """Section 5: "three times prior to termination", whenever the validation error stops improving."""
    schedule, rates = copy.deepcopy(trainer.state.schedule), []
    for epoch in range(1, 40):
        schedule.epoch_done(0.5, epoch)
        rates.append(PAPER.optimiser.lr * schedule.factor(epoch))
    assert sorted(set(np.round(rates, 9)), reverse=True) == [0.01, 0.001, 0.0001, 0.00001]


def test_ten_crops(step):
    """Section 4.1: corners and centre of 256 x 256, and the same mirrored."""
    cuts = [(options["top"][0], options["left"][0], options["flip"][0]) for name, _, options in step.all
            if name == "augment_forward"]
    places = [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    assert sorted(cuts) == sorted((top, left, flip) for top, left in places for flip in (0, 1))


def test_crops_and_colours_of_training():
    """Section 4.1: 224 of 256 anywhere, half of them mirrored; components times a standard deviation of 0.1."""
    eigenvalues = np.array([0.2, 0.05, 0.01])
    draw = PAPER.augment.draw(0, 0, np.arange(20_000, dtype=np.uint32), (256, 256), (eigenvalues, np.eye(3)),
                              crop=PAPER.preprocess.crop)
    for side in ("top", "left"):
        assert np.unique(draw[side]).tolist() == list(range(33))
    assert set(draw["flip"]) == {0, 1} and abs(draw["flip"].mean() - 0.5) < 0.02
    np.testing.assert_allclose(draw["shift"].std(axis=0), 0.1 * 255 * eigenvalues, rtol=0.03)


def test_initial_weights():
    """Section 5: N(0, 0.01) in every layer; biases of 1 in layers 2, 4, 5 and the hidden ones, 0 in the others."""
    net = alexnet(num_classes=1000, device="reference", fc=256)
    for name, param in net.params.items():
        layer, kind = name.split(".")
        if kind == "w":
            assert abs(param.data.mean()) < 2e-4 and abs(param.data.std() / 0.01 - 1) < 0.02, name
        else:
            assert (param.data == (layer in ("conv2", "conv4", "conv5", "fc6", "fc7"))).all(), name
