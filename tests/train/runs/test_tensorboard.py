"""TensorBoard events: what they hold, and that a resumed run continues them."""

import builtins

import pytest

from minicnn.errors import ConfigError
from minicnn.train.runs.metrics import read_metrics
from tests.helpers.small_run import small_trainer

pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")


def events(folder):
    """(name, step) -> value, of all event files; later files win, as TensorBoard has it."""
    from tensorboardX.proto.event_pb2 import Event
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):                               # length (8), its checksum (4), record, checksum (4)
            size = int.from_bytes(data[at:at + 8], "little")
            event = Event.FromString(data[at + 12:at + 12 + size])
            found.update({(value.tag, event.step): value.simple_value for value in event.summary.value})
            at += 16 + size
    return found


def test_the_events_are_the_metrics(tmp_path):
    """96 images in batches of 8: 12 steps an epoch."""
    trainer = small_trainer(tmp_path / "run", tensorboard=True)
    trainer.fit(1)
    small_trainer(tmp_path / "run", tensorboard=True).resume().fit(2)
    found, records = events(tmp_path / "run"), read_metrics(tmp_path / "run/metrics.jsonl")
    for record in records:
        if record["kind"] == "epoch":
            assert found["val/top1", 12 * record["epoch"]] == pytest.approx(record["val"]["top1"])
            assert found["train/loss", 12 * record["epoch"]] == pytest.approx(record["train"]["loss"])
        elif record["kind"] == "step":
            at = 12 * (record["epoch"] - 1) + record["step"]
            assert found["train/step_loss", at] == pytest.approx(record["loss"])
            assert found["learning_rate", at] == pytest.approx(record["lr"])
    assert max(step for _, step in found) == 24


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *arguments):
        if name.partition(".")[0] == "tensorboardX":
            raise ImportError(name)
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'minicnn\[tensorboard\]'"):
        small_trainer(tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("moment", [1, 3, 12])
def test_events_that_cannot_be_written_end_nothing(tmp_path, monkeypatch, moment):
    """A full disk under them costs a line, whenever it is met; and no event waits for a thread that has ended."""
    from tensorboardX.record_writer import RecordWriter
    calls, write, said = [], RecordWriter.write, []

    def full(self, data):
        calls.append(data)
        if len(calls) > moment:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", full)
    trainer = small_trainer(tmp_path / "run", tensorboard=True, say=said.append)
    assert trainer.fit(3).epochs == 3
    assert [line for line in said if "space" in line] == [
        "no more TensorBoard events, training goes on: [Errno 28] No space left on device"]
