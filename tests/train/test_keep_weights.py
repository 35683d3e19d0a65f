"""keep_every: the weights alone of every so many epochs; after any interruption the same files."""

import shutil

import numpy as np
import pytest

from minicnn.cli import main as cli
from minicnn.errors import CheckpointError, ConfigError
from minicnn.experiment.trained import load_trained
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.system.files import read_safetensors
from minicnn.train.recipe import Recipe
from minicnn.train.runs.run_dir import LAST, kept_path, kept_weights
from tests.helpers.small_run import small_net, small_recipe, small_trainer


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of four epochs, with layer state and averaged weights, that keeps every second; what was predicted with."""
    folder, predicted = tmp_path_factory.mktemp("kept") / "run", {}
    recipe = Recipe.from_dict(small_recipe().to_dict() | {"average": {"factor": 0.9, "warmup": True}})
    trainer = small_trainer(folder, images=16, keep_every=2, net=small_net(with_state=True), recipe=recipe)

    def note():
        with trainer.optimiser.averaged():
            predicted[trainer.epoch] = {name: np.array(array) for name, array in trainer.net.arrays().items()}

    trainer.on_epoch = note
    trainer.fit(4)
    return folder, predicted, recipe


def test_the_weights_that_predict_are_kept_alone(kept):
    folder, predicted, _ = kept
    assert list(kept_weights(folder)) == [2, 4] and [path.name for path in sorted((folder / "weights").iterdir())] == [
        "epoch-0002.safetensors", "epoch-0004.safetensors"]
    for epoch, path in kept_weights(folder).items():
        tensors, _ = read_safetensors(path)
        assert {name for name in tensors if not name.startswith("data/")} == set(predicted[epoch])
        for name, array in predicted[epoch].items():
            np.testing.assert_array_equal(tensors[name], array)
        net, pipeline, meta = load_trained(path, "reference")
        assert meta["epoch"] == epoch and (net.params["conv1.w"].data == predicted[epoch]["conv1.w"]).all()


def test_resumed_runs_keep_the_same(kept, tmp_path):
    """Also a run that was stopped after the epoch's checkpoint, before its weights were kept."""
    folder, _, recipe = kept
    other = tmp_path / "run"

    def trainer():
        return small_trainer(other, images=16, keep_every=2, net=small_net(with_state=True), recipe=recipe)

    trainer().fit(2)
    kept_path(other, 2).unlink()
    trainer().resume().fit(4)
    for epoch in (2, 4):
        one, two = (read_safetensors(kept_path(run, epoch))[0] for run in (folder, other))
        assert set(one) == set(two) and all((one[name] == two[name]).all() for name in one)


def test_ranks_keep_the_whole_weights(tmp_path):
    run_local(2, lambda comm: small_trainer(tmp_path / "run", images=16, keep_every=1, net=SCHEMES["hybrid"](
        small_net(), comm)).fit(1))
    one, two = (read_safetensors(path)[0] for path in (kept_path(tmp_path / "run", 1), tmp_path / "run" / LAST))
    assert one["fc2.w"].shape == two["fc2.w"].shape and all((two[name] == array).all() for name, array in one.items())


def test_verify_and_mistakes(kept, tmp_path, capsys):
    folder = shutil.copytree(kept[0], tmp_path / "run")
    assert cli.main(["verify", str(folder)]) == 0 and "epoch-0004.safetensors: epoch 4" in capsys.readouterr().out
    path = kept_path(folder, 4)
    with pytest.raises(CheckpointError, match=f"weights of an epoch alone.*resume with {LAST}.*--init-from"):
        small_trainer(tmp_path / "new", images=16, net=small_net(with_state=True), recipe=kept[2]).resume(path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    for what in (folder, path):
        assert cli.main(["verify", str(what)]) == 1 and f"damaged   {path}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="keep_every must be a number of epochs"):
        small_trainer(tmp_path / "new", keep_every=-1)
