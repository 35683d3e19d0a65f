"""The trainer in one process: it learns, stops, resumes, and refuses settings that cannot work."""

import dataclasses
import os
import signal

import numpy as np
import pytest

from minicnn.data.augment import Augment
from minicnn.data.dataset import ImageError
from minicnn.data.procedural import procedural_sets
from minicnn.errors import CheckpointError, ConfigError, DataError
from minicnn.train.loop import DivergedError, Trainer
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.metrics import read_metrics
from minicnn.train.schedule import Constant
from minicnn.train.watch.memory import check_memory
from tests.helpers.small_run import small_net, small_recipe, small_trainer


def state(path):
    """Every tensor of a checkpoint as bytes, and its metadata without what a run may differ in."""
    saved = load_checkpoint(path)
    kept = {f"{slot}/{name}": array for slot, arrays in saved.slots.items() for name, array in arrays.items()}
    arrays = {**saved.arrays(), **kept, **saved.data}
    return ({name: array.tobytes() for name, array in arrays.items()},
            {name: value for name, value in saved.meta.items() if not name.startswith("metrics_")})


def log(run_dir):
    return [{name: value for name, value in record.items() if name != "time"}
            for record in read_metrics(run_dir / "metrics.jsonl")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Three epochs of twelve steps in one go."""
    run_dir = tmp_path_factory.mktemp("run") / "undisturbed"
    outcome = small_trainer(run_dir).fit(3)
    assert not outcome.interrupted and outcome.epochs == 3
    return run_dir


def test_it_learns(tmp_path):
    """It overfits 32 images."""
    recipe = dataclasses.replace(small_recipe(lr=0.0005), augment=Augment(crop=32, flip=False), schedule=Constant())
    trainer = small_trainer(tmp_path / "run", net=small_net(size=32), recipe=recipe, images=32)
    trainer.fit(25)
    epochs = [record["train"] for record in log(trainer.run_dir) if record["kind"] == "epoch"]
    assert epochs[0]["loss"] > 1.3 and epochs[-1]["loss"] < 0.7 and epochs[-1]["top1"] > 0.7


def test_what_a_run_leaves(undisturbed):
    assert sorted(os.listdir(undisturbed)) == ["best.safetensors", "last.safetensors", "metrics.jsonl",
                                               "previous.safetensors"]
    records = log(undisturbed)
    assert [r["kind"] for r in records] == ["run"] + 3 * (12 * ["step"] + ["epoch"])
    epochs = [r for r in records if r["kind"] == "epoch"]
    best = max(epochs, key=lambda r: (r["val"]["top1"], -r["val"]["loss"]))
    assert load_checkpoint(undisturbed / "best.safetensors").meta["best"] == {
        "epoch": best["epoch"], "top1": best["val"]["top1"], "loss": best["val"]["loss"]}
    assert [r["best"] for r in epochs][best["epoch"] - 1] is True


class StopAfter:
    """In place of Ctrl-C: sends a signal to this very process within step number `steps`."""

    def __init__(self, trainer, steps, number=signal.SIGINT):
        self.trainer, self.left, self.step, self.number = trainer, steps, trainer.sgd.step, number
        trainer.sgd.step = self

    def __call__(self, *arguments, **options):
        self.step(*arguments, **options)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("stops", [(1,), (11,), (12,), (13,), (5, 9, 1, 14), (24,)])
def test_stopped_and_resumed_is_bit_for_bit_undisturbed(undisturbed, tmp_path, stops):
    trainer = small_trainer(tmp_path / "run")
    for steps in stops:
        StopAfter(trainer, steps)
        assert trainer.fit(3).interrupted
        trainer = small_trainer(tmp_path / "run").resume()
    assert not trainer.fit(3).interrupted
    for name in ("last.safetensors", "best.safetensors"):
        assert state(tmp_path / "run" / name) == state(undisturbed / name)
    assert log(tmp_path / "run") == log(undisturbed)


def test_stopped_during_validation(undisturbed, tmp_path, monkeypatch):
    def stop_here(*arguments, stop, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()

    with monkeypatch.context() as patch:
        patch.setattr("minicnn.train.loop.evaluate", stop_here)
        trainer = small_trainer(tmp_path / "run")
        assert trainer.fit(3).interrupted and (trainer.epoch, trainer.step) == (0, 12)
    small_trainer(tmp_path / "run").resume().fit(3)
    assert state(tmp_path / "run" / "last.safetensors") == state(undisturbed / "last.safetensors")
    assert log(tmp_path / "run") == log(undisturbed)


def test_an_image_that_goes_missing_ends_the_run_at_a_step_and_is_gone_on_from(tmp_path):
    """The steps before it are kept; once it is back, the run ends as an undisturbed one."""
    whole = small_trainer(tmp_path / "whole", images=32)
    whole.fit(2)
    trainer = small_trainer(tmp_path / "run", images=32)
    trainer.prepare()
    trainer.train.keep_decoded(0)
    calls, decode = [], trainer.train.decode

    def gone_later(item):
        calls.append(item)
        if len(calls) > 40:
            raise ImageError(str(item), "No such file or directory")
        return decode(item)

    trainer.train.decode = gone_later
    with pytest.raises(ImageError, match="No such file"):
        trainer.fit(2)
    again = small_trainer(tmp_path / "run", images=32).resume()
    assert (again.epoch, again.step) > (0, 0)
    again.fit(2)
    for name, param in whole.net.params.items():
        assert param.data.tobytes() == again.net.params[name].data.tobytes(), name


def test_a_folder_that_cannot_be_written_is_reported_first(tmp_path):
    (tmp_path / "file").write_text("")
    trainer = small_trainer(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match="run cannot be written to: .*file: Not a directory; choose another folder"):
        trainer.fit(1)
    assert trainer.statistics is None


def test_metrics_that_cannot_be_written_end_the_run_with_a_sentence(tmp_path, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device", str(self.path))

    monkeypatch.setattr("minicnn.train.runs.metrics.MetricsLog.position", full)
    with pytest.raises(ConfigError, match="metrics.jsonl: cannot be written: No space left on device; make room"):
        small_trainer(tmp_path / "run", images=16).fit(1)


def test_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer = small_trainer(tmp_path / "run")
    StopAfter(trainer, 1)
    trainer.fit(1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_signal_stops_at_once(tmp_path):
    trainer = small_trainer(tmp_path / "run")
    StopAfter(StopAfter(trainer, 2).trainer, 2)         # two signals within the second step
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(1)
    assert not trainer.last_path.exists()


def test_checkpoints_within_an_epoch(tmp_path):
    trainer, seen = small_trainer(tmp_path / "run", save_every=5), []
    save = trainer.save
    trainer.save = lambda best=False: (seen.append((trainer.epoch, trainer.step)), save(best=best))
    trainer.fit(2)
    assert seen == [(0, 5), (0, 10), (1, 0), (1, 3), (1, 8), (2, 0)]


def test_a_long_epoch_is_saved_from_time_to_time(undisturbed, tmp_path, monkeypatch):
    """Where nobody asked for it, too; and it changes nothing."""
    monkeypatch.setattr("minicnn.train.loop.SAVE_AFTER", 0)
    trainer, seen = small_trainer(tmp_path / "run"), []
    save = trainer.save
    trainer.save = lambda best=False: (seen.append((trainer.epoch, trainer.step)), save(best=best))
    trainer.fit(3)
    assert seen[:12] == [(0, step) for step in range(1, 13)] and seen[-1] == (3, 0)
    assert state(tmp_path / "run" / "last.safetensors") == state(undisturbed / "last.safetensors")
    assert log(tmp_path / "run") == log(undisturbed)


def test_more_epochs_than_planned(undisturbed, tmp_path):
    small_trainer(tmp_path / "run").fit(2)
    small_trainer(tmp_path / "run").resume().fit(3)
    assert state(tmp_path / "run" / "last.safetensors") == state(undisturbed / "last.safetensors")


def test_fit_may_be_called_again(undisturbed, tmp_path):
    trainer = small_trainer(tmp_path / "run")
    trainer.fit(1)
    trainer.fit(3)
    assert state(tmp_path / "run" / "last.safetensors") == state(undisturbed / "last.safetensors")
    assert log(tmp_path / "run") == log(undisturbed)


def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_checkpoint(tmp_path):
    small_trainer(tmp_path / "run").fit(1)
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    trainer = small_trainer(tmp_path / "run").resume()
    trainer.net.params["fc3.w"].data[...] = np.nan
    with pytest.raises(DivergedError, match=r"nan at epoch 2, step 1.*smaller learning rate.*last.safetensors"):
        trainer.fit(2)
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before


def test_a_run_folder_is_never_overwritten(undisturbed):
    before = (undisturbed / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="exists: resume that run"):
        small_trainer(undisturbed).fit(3)
    assert (undisturbed / "metrics.jsonl").read_bytes() == before


OTHERS = {
    "optimiser.lr = 0.002, this one has 0.1": {"recipe": small_recipe(lr=0.1)},
    "optimiser.batch = 8, this one has 4": {"recipe": small_recipe(batch=4)},
    "augment.flip = True, this one has False": {"recipe": dataclasses.replace(
        small_recipe(), augment=Augment(crop=24, flip=False, colour="paper"))},
    "seed = 1, this one has 2": {"seed": 2},
    "net_seed = 1, this one has 7": {"net": small_net(seed=7), "seed": 1},
    "data.train = synthetic train .* this one has synthetic train": {"images": 104},
}


@pytest.mark.parametrize("message", OTHERS)
def test_a_run_is_not_resumed_with_other_settings(undisturbed, message):
    trainer = small_trainer(undisturbed, **OTHERS[message])
    with pytest.raises(CheckpointError, match=message):
        trainer.resume()


def test_a_checkpoint_of_another_net_names_the_first_difference(undisturbed):
    train, val, _ = procedural_sets((96, 40, 4), seed=3, size=40)
    recipe = dataclasses.replace(small_recipe(), augment=Augment(crop=32))
    trainer = Trainer(small_net(size=32), recipe, train, val, undisturbed, progress=False, say=None)
    with pytest.raises(CheckpointError, match=r"another net.*fc2.w.*\(128, 32\).*\(288, 32\)"):
        trainer.resume()


def test_settings_that_cannot_work_are_refused_before_anything_is_written(tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(DataError, match="batch of 97 is larger"):
        small_trainer(run_dir, recipe=small_recipe(batch=97))
    with pytest.raises(ConfigError, match="has 3 classes, but .* has 4"):
        small_trainer(run_dir, net=small_net(classes=3))
    with pytest.raises(ConfigError, match="crops of 20 x 20 x 3"):
        small_trainer(run_dir, recipe=dataclasses.replace(small_recipe(), augment=Augment(crop=20))).fit(1)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        small_trainer(run_dir).fit(0)
    with pytest.raises(ConfigError, match="save_every"):
        small_trainer(run_dir, save_every=-1)
    assert not run_dir.exists()


def test_memory_is_compared_before_the_first_step(tmp_path, monkeypatch):
    trainer = small_trainer(tmp_path / "run")
    needed = trainer.net.memory(8)
    monkeypatch.setattr("minicnn.train.watch.memory.free_memory", lambda: needed - 1)
    with pytest.raises(ConfigError, match="batch 8 needs .* a batch of 4 would fit"):
        trainer.fit(1)
    assert not trainer.run_dir.exists()
    assert "predicted" in check_memory(trainer.net, 8, free=needed)
    with pytest.raises(ConfigError, match="not even a batch of 1"):
        check_memory(trainer.net, 8, free=100)
