"""Runs of networks whose layers have state: it is saved and resumed, equal on all ranks, and frozen with its layer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minicnn.errors import CheckpointError
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.train.finetune import load_pretrained
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.run_dir import restore
from tests.helpers.small_run import small_net, small_recipe, small_trainer
from tests.train.test_kill import assert_same_run, finish, noted, start
from tests.train.test_loop import StopAfter, log, state

MEAN = "mean1.mean"


def trainer(run_dir, net=None, **options):
    return small_trainer(run_dir, net=net or small_net(with_state=True), **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of three epochs in one go."""
    run_dir = tmp_path_factory.mktemp("state") / "whole"
    trainer(run_dir).fit(3)
    return run_dir


def test_a_checkpoint_holds_it(whole):
    saved = load_checkpoint(whole / "last.safetensors")
    assert list(saved.state) == [MEAN] and MEAN not in saved.params and MEAN not in saved.velocities
    assert np.abs(saved.state[MEAN]).min() > 0


@pytest.mark.parametrize("steps", [1, 12, 17])
def test_stopped_and_resumed(whole, tmp_path, steps):
    """Evaluation and diagnostics leave it alone: the same bits as of the run in one go."""
    first = trainer(tmp_path / "run")
    StopAfter(first, steps)
    assert first.fit(3).interrupted
    second = trainer(tmp_path / "run", net=small_net(with_state=True, seed=1)).resume()
    np.testing.assert_array_equal(second.net.state[MEAN], first.net.state[MEAN])
    second.fit(3)
    assert state(tmp_path / "run/last.safetensors") == state(whole / "last.safetensors")
    assert log(tmp_path / "run") == log(whole)


def test_killed_and_resumed(tmp_path):
    assert finish(start(tmp_path / "undisturbed", with_state=True)) == 0
    for line in (4, 15, 30):
        process = start(tmp_path / "run", with_state=True)
        while process.poll() is None and noted(tmp_path / "run") < line:
            pass
        process.kill()
        assert finish(process) != 0
    assert finish(start(tmp_path / "run", with_state=True)) == 0
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")
    assert load_checkpoint(tmp_path / "run/last.safetensors").state[MEAN].any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_ranks(tmp_path, scheme):
    """The state of both, and of the checkpoint, is equal; resumed within an epoch it ends with the same bits."""
    def fit(folder, epochs, stop_after=None):
        def body(comm):
            run = trainer(tmp_path / folder, net=SCHEMES[scheme](small_net(with_state=True), comm), images=48)
            if run.last_path.exists():
                run.resume()
            if stop_after and comm.rank == 1:
                StopAfter(run, stop_after)
            run.fit(epochs)
            return np.array(run.net.state[MEAN])
        return run_local(2, body, timeout=300)

    first, second = fit("whole", 2)
    saved = load_checkpoint(tmp_path / "whole/last.safetensors")
    if scheme in ("data", "hybrid"):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, saved.state[MEAN])
    assert saved.state[MEAN].shape == (8,) and saved.state[MEAN].any()
    fit("parts", 1)
    fit("parts", 2)
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "parts/last.safetensors").state[MEAN], saved.state[MEAN])


def test_a_frozen_layer_keeps_its_state(tmp_path):
    recipe = small_recipe()
    recipe = dataclasses.replace(recipe, optimiser=dataclasses.replace(recipe.optimiser, layer_lr={"mean1": 0.0}))
    run = trainer(tmp_path / "run", recipe=recipe, images=16)
    run.net.state[MEAN][...] = 0.25
    run.fit(1)
    assert (run.net.state[MEAN] == 0.25).all()


def test_trained_networks_come_with_their_state(whole):
    """By restore, for evaluation, and by load_pretrained, for fine-tuning."""
    saved = load_checkpoint(whole / "best.safetensors")
    restored, tuned = small_net(with_state=True), small_net(with_state=True, classes=7)
    restore(restored, whole / "best.safetensors", saved.meta["classes"])
    lines = load_pretrained(tuned, whole / "best.safetensors", new_head=True)
    assert lines[0].startswith("3 of 4 layers") and lines[0].endswith("conv1, mean1, fc2")
    for net in (restored, tuned):
        np.testing.assert_array_equal(net.state[MEAN], saved.state[MEAN])


def test_a_checkpoint_without_it_is_of_another_network(tmp_path):
    small_trainer(tmp_path / "run", images=16).fit(1)
    with pytest.raises(CheckpointError, match="of another network: it has no 'mean1.shift'"):
        trainer(tmp_path / "run", images=16).resume()
