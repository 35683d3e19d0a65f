"""A disk that is full at any write: nothing that was finished is lost, nothing is left, and the same call goes on."""

import errno
import os
import shutil

import pytest

from minicnn.cli.main import main
from minicnn.data.prepare import shards
from minicnn.data.statistics import measure
from minicnn.errors import CheckpointError, ConfigError, DataError
from minicnn.system.files import read_safetensors
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.folder import LOCK
from minicnn.train.runs.metrics import read_metrics
from minicnn.train.runs.run_dir import find_checkpoint
from tests.data.prepare.preparing import contents, prepared
from tests.data.test_statistics import in_memory
from tests.helpers.full_disk import full_disk
from tests.helpers.small_run import save_tree, small_trainer
from tests.helpers.tiny_command import tiny_command, tiny_set

BEST, LAST, PREVIOUS = "best.safetensors", "last.safetensors", "previous.safetensors"
SETTINGS = {"images": 16}


def leftovers(folder) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names if ".part" in name]


def test_saving_a_checkpoint(tmp_path, monkeypatch):
    """Written as last and best, with the last one kept: each is the old file or the new one, and is whole."""
    trainer = small_trainer(tmp_path, **SETTINGS)
    trainer.fit(2)

    def epoch(name):
        return load_checkpoint(tmp_path / name, parts=()).meta["epoch"]

    def save():
        trainer.state.save(lambda: (0, 0), best=True)

    with full_disk(monkeypatch, tmp_path) as disk:
        save()
    assert disk.count > 20
    for k in range(disk.count):
        trainer.state.epoch = 10 + k
        with full_disk(monkeypatch, tmp_path, lambda n, k=k: n == k):
            try:
                save()
                assert epoch(LAST) == epoch(BEST) == 10 + k     # a link that fails becomes a copy, or is done without
            except CheckpointError as error:
                assert "No space left on device" in str(error) and "the checkpoint before it is intact" in str(error)
        assert leftovers(tmp_path) == [] and {epoch(LAST), epoch(BEST)} <= {9 + k, 10 + k, 2}
        save()
        assert epoch(LAST) == epoch(BEST) == 10 + k and (tmp_path / PREVIOUS).exists()


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_training(tmp_path, monkeypatch, every):
    """A run of two short epochs whose disk is full at the k-th write, for some k, and is resumed."""
    whole = tmp_path / "whole"
    with full_disk(monkeypatch, tmp_path) as disk:
        small_trainer(whole, **SETTINGS).fit(2)
    expected, lines = load_checkpoint(whole / LAST), len(read_metrics(whole / "metrics.jsonl"))
    for k in range(0, disk.count, every):
        run_dir = tmp_path / str(k)
        with full_disk(monkeypatch, run_dir, lambda n, k=k: n == k):
            try:
                small_trainer(run_dir, **SETTINGS).fit(2)
                assert k == 2 or k > 24                         # who has the lock; a link, as above
            except (ConfigError, CheckpointError) as error:
                assert "No space left on device" in str(error)
        assert leftovers(run_dir) == []
        trainer = small_trainer(run_dir, **SETTINGS)
        if trainer.last_path.exists():
            trainer.resume()
        trainer.fit(2)
        found = load_checkpoint(run_dir / LAST)
        assert all((found.params[name] == array).all() for name, array in expected.params.items())
        assert len(read_metrics(run_dir / "metrics.jsonl")) == lines


def test_a_run_that_has_only_its_best_goes_on_from_there(tmp_path):
    """Its disk was full between the two names of its first checkpoint."""
    small_trainer(tmp_path / "run", **SETTINGS).fit(1)
    (tmp_path / "run" / LAST).unlink()
    assert find_checkpoint(tmp_path, "run", LAST) == tmp_path / "run" / BEST
    assert small_trainer(tmp_path / "run", **SETTINGS).resume().epoch == 1


@pytest.mark.slow
def test_the_whole_command(tmp_path, monkeypatch, capsys):
    """From the first folder to the last picture and the page: an error is one line, and the run goes on to its end."""
    tiny_set(tmp_path)
    runs, page = tmp_path / "runs", ["--results", f"{tmp_path / 'runs/page'}"]
    command = tiny_command(tmp_path, "--device", "reference", *page)

    def train(*words) -> tuple[int, str]:
        return main(list(words)), capsys.readouterr().err

    with full_disk(monkeypatch, runs) as disk:
        assert train(*command) == (0, "")
    done = set(os.listdir(runs / "set-tiny-1"))
    assert disk.count > 100 and done > {"test.json", "predictions.png", BEST, LAST}
    for k in range(0, disk.count, 3):                           # each array of a checkpoint takes some; see above
        shutil.rmtree(runs)
        with full_disk(monkeypatch, runs, lambda n, k=k: n == k):
            code, errors = train(*command)
        assert (code, errors) == (0, "") or (code == 2 and "No space left on device" in errors
                                             and errors.count("\n") == 1)
        begun = any((runs / "set-tiny-1" / name).exists() for name in (BEST, LAST))
        assert leftovers(runs) == [] and not (begun and (runs / "set-tiny-1" / LOCK).exists())
        assert train(*(["train", "--resume", f"{runs / 'set-tiny-1'}", *page] if begun else command)) == (0, "")
        assert {*os.listdir(runs / "set-tiny-1"), PREVIOUS} == done | {PREVIOUS}
        assert {*os.listdir(runs)} == {"set-tiny-1", "page.json", "page.md"}


@pytest.mark.parametrize(("jpeg", "every"), [(False, 5), pytest.param(False, 1, marks=pytest.mark.slow),
                                             pytest.param(True, 1, marks=pytest.mark.slow)])
def test_preparing(tmp_path, monkeypatch, jpeg, every):
    save_tree(tmp_path / "tree", 3, size=16)
    options = {"jpeg": jpeg, "size": 16, "workers": 1}
    with full_disk(monkeypatch, tmp_path / "whole") as disk:
        prepared(tmp_path / "tree", tmp_path / "whole", **options)
    expected = contents(tmp_path / "whole")
    assert disk.count > 30
    for k in range(0, disk.count, every):
        out = tmp_path / str(k)
        with full_disk(monkeypatch, out, lambda n, k=k: n == k), \
                pytest.raises(DataError, match="No space left on device"):
            prepared(tmp_path / "tree", out, **options)
        assert leftovers(out) == []
        finished = {path: path.stat().st_mtime_ns for path in out.glob("*.rgb")
                    if (out / f"unfinished/{path.name}.record").exists()}
        prepared(tmp_path / "tree", out, **options)
        assert contents(out) == expected
        assert finished == {path: path.stat().st_mtime_ns for path in finished}


def test_a_shard_whose_record_cannot_be_written(tmp_path, monkeypatch):
    """It has its name already: the same command goes on, and makes it again."""
    save_tree(tmp_path / "tree", 3, size=16)
    options = {"size": 16, "workers": 1}

    def full(path, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with monkeypatch.context() as patch, pytest.raises(DataError, match="No space left on device"):
        patch.setattr(shards, "write_safetensors", full)
        prepared(tmp_path / "tree", tmp_path / "out", **options)
    assert {"all-00000.rgb", "unfinished"} <= set(os.listdir(tmp_path / "out"))
    prepared(tmp_path / "tree", tmp_path / "out", **options)
    assert "prepared.json" in os.listdir(tmp_path / "out")


def test_keeping_statistics(tmp_path, monkeypatch):
    path = tmp_path / "statistics.safetensors"
    with full_disk(monkeypatch, tmp_path) as disk:
        measure(in_memory(3), path, progress=False)
    assert disk.count > 5
    for k in range(disk.count):
        path.unlink(missing_ok=True)
        with full_disk(monkeypatch, tmp_path, lambda n, k=k: n == k), \
                pytest.raises(DataError, match="No space left on device"):
            measure(in_memory(3), path, progress=False)
        assert os.listdir(tmp_path) in ([], [path.name])
        assert not path.exists() or read_safetensors(path)
        assert measure(in_memory(3), path, progress=False).count == 3
