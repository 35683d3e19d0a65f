"""Runs with each optimiser and an average of the weights: resumed to the same bits, validated with the average."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.errors import CheckpointError
from minicnn.evaluate.evaluate import evaluate
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.train.finetune import load_pretrained
from minicnn.train.recipe import Recipe
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.run_dir import restore
from tests.helpers.small_run import small_net, small_recipe, small_trainer
from tests.train.test_kill import assert_same_run, finish, noted, start
from tests.train.test_loop import StopAfter, log, state

AVERAGE = {"average": {"factor": 0.9, "warmup": True}}
PARTS = {"sgd": AVERAGE, "adam": {"optimiser": {"kind": "adam", "batch": 8, "decay": 0.01}},
         "adamw": {"optimiser": {"kind": "adamw", "batch": 8}, **AVERAGE},
         "pytorch": {"optimiser": {"lr": 0.002, "batch": 8, "lr_in_velocity": False, "nesterov": True,
                                   "decoupled": True}},
         "descendants": {"optimiser": {"lr": 0.002, "batch": 8, "filter_rms": 0.02},
                         "augment": {"scale": [24, 40], "cutout": 6, "alternate": True, "colour": "paper"}}}
SLOTS = {"sgd": {"velocity", "average"}, "adam": {"moment1", "moment2"}, "adamw": {"moment1", "moment2", "average"},
         "pytorch": {"velocity"}, "descendants": {"velocity"}}
every = pytest.mark.parametrize("name", PARTS)


def trainer(run_dir, name, net=None, **options):
    recipe = Recipe.from_dict(small_recipe().to_dict() | PARTS[name])
    return small_trainer(run_dir, net=net or small_net(with_state=True), recipe=recipe, **{"images": 48, **options})


@every
def test_stopped_and_resumed(tmp_path, name):
    """Within the second epoch: the bits of a run in one go; both are of the optimiser and not of SGD as printed."""
    trainer(tmp_path / "whole", name).fit(2)
    first = trainer(tmp_path / "run", name)
    StopAfter(first, 9)
    assert first.fit(2).interrupted
    trainer(tmp_path / "run", name).resume().fit(2)
    assert state(tmp_path / "run/last.safetensors") == state(tmp_path / "whole/last.safetensors")
    assert log(tmp_path / "run") == log(tmp_path / "whole")
    saved = load_checkpoint(tmp_path / "run/last.safetensors")
    assert saved.slots.keys() == SLOTS[name] and saved.meta["recipe"]["optimiser"]["kind"] in (name, "sgd")
    assert saved.meta["optimiser"] == ({"steps": 12} if "moment1" in saved.slots else {})
    for arrays in saved.slots.values():
        assert arrays.keys() >= saved.params.keys() and any(array.any() for array in arrays.values())


@every
@pytest.mark.slow
def test_killed_and_resumed(tmp_path, name):
    settings = {"with_state": True, "epochs": 2, "recipe": PARTS[name]}
    assert finish(start(tmp_path / "undisturbed", **settings)) == 0
    for line in (5, 16):
        process = start(tmp_path / "run", **settings)
        while process.poll() is None and noted(tmp_path / "run") < line:
            pass
        process.kill()
        assert finish(process) != 0
    assert finish(start(tmp_path / "run", **settings)) == 0
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_ranks(tmp_path, scheme):
    """They stop within an epoch and end with the same bits; a single process goes on with their checkpoint."""
    def fit(folder, stop_after=None):
        def body(comm):
            run = trainer(tmp_path / folder, "adamw", net=SCHEMES[scheme](small_net(with_state=True), comm))
            if run.last_path.exists():
                run.resume()
            if stop_after and comm.rank == 1:
                StopAfter(run, stop_after)
            run.fit(2)
        run_local(2, body, timeout=300)
        return load_checkpoint(tmp_path / folder / "last.safetensors")

    whole = fit("whole")
    fit("parts", 9)
    parts = fit("parts")
    alone = trainer(tmp_path / "alone", "adamw")
    alone.fit(2)
    single = load_checkpoint(tmp_path / "alone/last.safetensors")
    assert whole.meta["optimiser"] == whole.meta["average"] == {"steps": 12}
    for slot, arrays in {"": whole.params, **whole.slots}.items():
        assert arrays.keys() == {"": single.params, **single.slots}[slot].keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal({"": parts.params, **parts.slots}[slot][name], array, err_msg=name)
            assert {"": single.params, **single.slots}[slot][name].shape == array.shape


# ---- the moving average of the weights
@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run with an average: (its trainer, what it said)."""
    said = []
    run = trainer(tmp_path_factory.mktemp("averaged") / "run", "sgd", say=said.append)
    run.fit(2)
    return run, said


def test_validation_is_of_the_average(averaged):
    """The logged loss is the restored checkpoint's; the network itself keeps the weights that are trained."""
    run, said = averaged
    net, saved = small_net(with_state=True, seed=9), load_checkpoint(run.last_path)
    pipeline, _ = restore(net, run.last_path, saved.meta["classes"])
    val = [record["val"] for record in log(run.run_dir) if record["kind"] == "epoch"][-1]
    assert evaluate(net, run.val, pipeline, batch=8, progress=False).loss == val["loss"]
    assert evaluate(run.net, run.val, pipeline, batch=8, progress=False).loss != val["loss"]
    for name, param in run.net.params.items():
        np.testing.assert_array_equal(param.data, saved.params[name])
        np.testing.assert_array_equal(net.params[name].data, saved.slots["average"][name])
        assert (param.data != net.params[name].data).any()
    assert "validation   with the moving average of the weights over the steps, factor 0.9" in said


def test_whoever_loads_a_checkpoint_gets_the_average(averaged):
    run, _ = averaged
    loaded, tuned = small_net(with_state=True), small_net(with_state=True)
    loaded.load(run.last_path)
    load_pretrained(tuned, run.last_path)
    for name, array in load_checkpoint(run.last_path).slots["average"].items():
        for net in (loaded, tuned):
            np.testing.assert_array_equal(net.arrays()[name], array)


def test_the_average_changes_nothing_that_is_trained(averaged, tmp_path):
    run, _ = averaged
    plain = small_trainer(tmp_path / "plain", net=small_net(with_state=True), images=48)
    plain.fit(2)
    for name, array in plain.net.arrays().items():
        np.testing.assert_array_equal(run.net.arrays()[name], array)


def test_another_optimiser_is_another_run(tmp_path):
    trainer(tmp_path / "run", "adam", images=16).fit(1)
    with pytest.raises(CheckpointError, match="its run had average.factor = None, this one has 0.9; average.warmup, "
                                              "optimiser.kind differ as well"):
        trainer(tmp_path / "run", "adamw", images=16).resume()


def test_the_memory_is_that_of_the_optimiser(tmp_path):
    """Adam keeps one array more than SGD, the average another."""
    runs = {name: trainer(tmp_path / name, name, images=16) for name in PARTS}
    weights = sum(param.data.nbytes for param in runs["sgd"].net.params.values())
    assert [runs[name].optimiser.more_memory / weights for name in ("pytorch", "sgd", "adam", "adamw")] == [0, 1, 1, 2]
