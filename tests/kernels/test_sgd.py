"""The update as printed in the AlexNet paper, and the other forms of SGD."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import naive
from tests.helpers.harness import call, compare
from tests.tolerances import assert_close

PAPER = {"lr": 0.01, "momentum": 0.9, "decay": 0.0005}
LARGE = {"lr": 0.3, "momentum": 0.9, "decay": 0.1}
FORMS = [{"nesterov": True}, {"decoupled": True}, {"lr_in_velocity": False},
         {"lr_in_velocity": False, "nesterov": True}, {"lr_in_velocity": False, "decoupled": True},
         {"nesterov": True, "decoupled": True}]
SETTINGS = [PAPER, LARGE, {**PAPER, "momentum": 0.0}, {**PAPER, "decay": 0.0}, *({**LARGE, **form} for form in FORMS)]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equals_loops(reference, rng, settings):
    w, dw, v = (rng.standard_normal((3, 5)) for _ in range(3))
    got = call(reference, "sgd_step", w, dw, v, writes=(0, 2), **settings)
    for a, b in zip(got, naive.sgd(w, dw, v, **settings), strict=True):
        assert_close(a, b, "elementwise")


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("shape", [(1,), (37,), (3, 3, 5, 19), (70001,)], ids=str)
def test_equals_reference(ops, dtype, rng, shape, settings):
    w, dw, v = (rng.standard_normal(shape).astype(dtype) for _ in range(3))
    compare(ops, "sgd_step", w, dw, v, writes=(0, 2), kind="elementwise", **settings)


def test_the_learning_rate_is_inside_the_velocity(ops, dtype):
    """Two steps of a gradient of 1, then a learning rate of 0: only momentum reduces the velocity."""
    w, dw, v = np.zeros(1, dtype), np.ones(1, dtype), np.zeros(1, dtype)
    for lr in (1.0, 1.0, 0.0):
        w, v = call(ops, "sgd_step", w, dw, v, writes=(0, 2), lr=lr, momentum=0.5, decay=0.0)
    assert v[0] == -0.75 and w[0] == -3.25               # v: -1, -1.5, -0.75
