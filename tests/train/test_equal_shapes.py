"""Arrays of equal shape keep their names: on the way into a checkpoint and out of it, over ranks, and on to predicting.

Where every array of a net has another shape, two that are exchanged are refused; in most nets some are alike.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.experiment.trained import load_trained
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.train.finetune import load_pretrained
from minicnn.train.recipe import AdamRecipe, AverageRecipe, SGDRecipe
from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.small_run import small_recipe, small_trainer

OPTIMISERS = {"sgd": SGDRecipe(lr=0.002, batch=8), "adam": AdamRecipe(batch=8)}


def alike(seed: int = 1):
    """Three convolutions and three normalisations of the same shapes, and two fully connected layers."""
    b = Builder((24, 24, 3), name="alike")
    b.conv("conv0", 4, 5, stride=4)
    for layer in range(1, 4):
        b.conv(f"conv{layer}", 4, 3, padding=1)
        b.batchnorm(f"bn{layer}")
        b.relu()
    b.global_avgpool()
    b.linear("fc1", 4)
    b.linear("fc2", 4)
    b.loss()
    return b.net(device="reference", seed=seed)


def trainer(run_dir, optimiser: str = "sgd", wrap=lambda net: net):
    recipe = dataclasses.replace(small_recipe(), optimiser=OPTIMISERS[optimiser], average=AverageRecipe(0.9))
    return small_trainer(run_dir, net=wrap(alike()), recipe=recipe, images=8)


def mark(found: dict) -> dict[str, float]:
    """Fill each of these arrays with a number of its own."""
    for number, array in enumerate(found.values(), 1):
        array[...] = number
    return {name: float(number) for number, name in enumerate(found, 1)}


def everything(run) -> dict[str, np.ndarray]:
    """All that a checkpoint holds of the net and the optimiser, on this rank: "velocity/conv1.w" and the like."""
    return run.net.arrays() | in_slots(run.state._slots())


def in_slots(slots: dict) -> dict[str, np.ndarray]:
    return {f"{slot}/{name}": array for slot, own in slots.items() for name, array in own.items()}


def marks(found: dict) -> dict[str, float]:
    assert all((array == array.reshape(-1)[0]).all() for array in found.values())
    return {name: float(array.reshape(-1)[0]) for name, array in found.items()}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_each_array_comes_back_under_its_own_name(tmp_path, optimiser):
    run = trainer(tmp_path / "run", optimiser)
    run.fit(1)
    expected = mark(everything(run))
    assert len(expected) > 50
    run.state.save(lambda: (0, None), best=True)
    assert marks(everything(trainer(tmp_path / "run", optimiser).resume())) == expected
    saved = load_checkpoint(run.best_path)
    assert marks(saved.arrays() | in_slots(saved.slots)) == expected
    averages = {name.removeprefix("average/"): value for name, value in expected.items() if "average/" in name}
    assert marks(load_trained(run.best_path, "reference")[0].arrays()) == averages
    tuned = alike(seed=2)
    load_pretrained(tuned, run.best_path)
    assert marks(tuned.arrays()).items() <= averages.items()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_over_two_ranks(tmp_path, scheme):
    """Gathered, written, read again and scattered."""
    run = trainer(tmp_path / "run")
    run.fit(1)
    expected = mark(everything(run))
    run.state.save(lambda: (0, None))

    def body(comm):
        own = trainer(tmp_path / "run", wrap=lambda net: SCHEMES[scheme](net, comm)).resume()
        found = marks(everything(own))
        own.state.save(lambda: (0, None))
        return found

    for found in run_local(2, body, timeout=300):
        assert found.items() <= expected.items() and found
    assert marks(everything(trainer(tmp_path / "run").resume())) == expected
