"""Training on several ranks: the same checkpoints, and what happens when a rank dies, hangs, or is stopped."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from minicnn.data.procedural import procedural_sets
from minicnn.parallel.comm import RankError
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.train import state
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.metrics import read_metrics
from tests.helpers.small_run import small_net, small_trainer
from tests.parallel.training import displacement

START = {name: param.data.copy() for name, param in small_net().params.items()}


def fit(run_dir, epochs, scheme=None, size=1, during=None, **options):
    """Train the small run, on ranks where a scheme is given, from its last checkpoint where there is one."""
    def body(comm):
        net = small_net() if scheme is None else SCHEMES[scheme](small_net(), comm)
        trainer = small_trainer(run_dir, images=48, net=net, **options)
        if trainer.last_path.exists():
            trainer.resume()
        if during:
            during(trainer, comm)
        outcome = trainer.fit(epochs)
        return outcome
    return run_local(size, body, timeout=300)


def checkpoint(run_dir):
    return load_checkpoint(run_dir / "last.safetensors")


def without_time(records):
    return [{key: value for key, value in record.items() if key != "time"} for record in records]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_run_on_two_ranks_is_the_run_on_one(tmp_path, scheme):
    fit(tmp_path / "alone", 2)
    fit(tmp_path / "two", 2, scheme, 2)
    alone, two = checkpoint(tmp_path / "alone"), checkpoint(tmp_path / "two")
    assert displacement(START, two.params, alone.params) < 1e-3
    assert {n: v.shape for n, v in two.velocities.items()} == {n: v.shape for n, v in alone.velocities.items()}
    assert two.meta["epoch"] == alone.meta["epoch"] == 2
    for ours, theirs in zip(*(read_metrics(tmp_path / name / "metrics.jsonl") for name in ("two", "alone")),
                            strict=True):
        assert ours["kind"] == theirs["kind"]
        if ours["kind"] == "epoch":
            assert ours["train"]["top1"] == pytest.approx(theirs["train"]["top1"], abs=0.03)
            assert ours["train"]["loss"] == pytest.approx(theirs["train"]["loss"], rel=1e-4)
            assert ours["val"]["loss"] == pytest.approx(theirs["val"]["loss"], rel=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_checkpoint_of_two_ranks_is_gone_on_with_by_any_number(tmp_path, scheme):
    """Interrupted in the middle of an epoch; two ranks go on to the same bits, one and four to the same weights."""
    def stop_early(trainer, comm):
        seen = []
        agree = trainer.net.ranks.any

        def request(own, *others):                          # on rank 1 alone, in the second epoch
            seen.append(own)
            return agree(own or (comm.rank == 1 and trainer.epoch == 1 and trainer.step == 4), *others)
        trainer.net.ranks.any = request

    fit(tmp_path / "whole", 2, scheme, 2)
    for name, ways in {"again": (scheme, 2), "one": (None, 1), "four": (scheme, 4)}.items():
        outcomes = fit(tmp_path / name, 2, scheme, 2, during=stop_early)
        assert [outcome.interrupted for outcome in outcomes] == [True, True]
        assert (checkpoint(tmp_path / name).meta["epoch"], checkpoint(tmp_path / name).meta["step"]) == (1, 4)
        fit(tmp_path / name, 2, *ways)
    whole, again = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "again")
    for name, array in {**whole.params, **whole.velocities}.items():
        np.testing.assert_array_equal({**again.params, **again.velocities}[name], array, err_msg=name)
    logs = [without_time(read_metrics(tmp_path / name / "metrics.jsonl")) for name in ("whole", "again")]
    if scheme == "columns":                                 # elsewhere the sums of an epoch are added in another order
        assert logs[0] == logs[1]
    for name in ("one", "four"):
        assert displacement(START, checkpoint(tmp_path / name).params, whole.params) < 1e-3, name


def test_a_slow_disk_is_not_a_hang(tmp_path, monkeypatch):
    """Rank 0 writes for two seconds; rank 1 waits for it, with a timeout of a tenth of that."""
    save = state.save_checkpoint
    monkeypatch.setattr(state, "save_checkpoint", lambda *args, **options: (time.sleep(2), save(*args, **options)))

    def body(comm):
        comm.timeout = 0.2
        small_trainer(tmp_path, images=48, net=SCHEMES["data"](small_net(), comm)).fit(1)
        return comm.warmed_up, comm.current_timeout

    assert run_local(2, body, timeout=300) == [(True, 0.2)] * 2


def test_only_rank_0_looks_through_the_images(tmp_path, monkeypatch):
    """It tells the others what it found, the unreadable ones included."""
    sets = procedural_sets((96, 40, 4), seed=3, size=32)
    monkeypatch.setattr("minicnn.train.state.scan", lambda dataset, progress: dataset.leave_out({1: "cut short"}))

    def body(comm):
        trainer = small_trainer(tmp_path, net=SCHEMES["data"](small_net(), comm))
        trainer.prepare()
        return trainer.statistics.mean, trainer.val.left_out, threading.current_thread().name

    (mean, left_out, _), (other, same, _) = run_local(2, body)
    np.testing.assert_array_equal(mean, other)
    assert left_out == same == {1: "cut short"} and not sets[1].left_out


def test_ranks_with_other_settings_do_not_train(tmp_path):
    with pytest.raises(RankError, match="rank 1 disagrees with rank 0 on how long it is to last"):
        run_local(2, lambda comm: small_trainer(tmp_path, net=SCHEMES["data"](small_net(), comm)).fit(1 + comm.rank))


def test_a_rank_that_fails_leaves_a_whole_checkpoint(tmp_path):
    """In the middle of the second epoch; the resumed run ends with the bits of an undisturbed one."""
    def fail(trainer, comm):
        loss = trainer.net.loss

        def trip(*arguments, **options):
            if comm.rank == 1 and trainer.epoch == 1 and trainer.step == 4:
                raise OSError("the plug was pulled")
            return loss(*arguments, **options)
        trainer.net.loss = trip

    fit(tmp_path / "whole", 2, "data", 2)
    with pytest.raises(RankError, match="rank 1 failed: OSError: the plug was pulled"):
        fit(tmp_path / "broken", 2, "data", 2, during=fail, save_every=5)
    assert checkpoint(tmp_path / "broken").meta["step"] == 4                # of 6: saved after steps 5 and 10
    fit(tmp_path / "broken", 2, "data", 2)
    whole, broken = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "broken")
    for name, array in whole.params.items():
        np.testing.assert_array_equal(broken.params[name], array, err_msg=name)
