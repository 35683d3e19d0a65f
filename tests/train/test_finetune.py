"""Fine-tuning: what is loaded from another run's checkpoint, what is initialised anew, and what is frozen."""

import dataclasses

import numpy as np
import pytest

from minicnn.errors import CheckpointError, ConfigError
from minicnn.train.finetune import load_pretrained
from minicnn.train.recipe import SGDRecipe
from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.graphs import images
from tests.helpers.small_run import small_net, small_recipe, small_trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The last checkpoint of a small run."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    small_trainer(folder).fit(1)
    return folder / "last.safetensors"


def values(net):
    return {name: np.array(param.data) for name, param in net.params.items()}


def test_everything_fits(run):
    net = small_net(seed=5)
    lines = load_pretrained(net, run)
    assert len(lines) == 1 and lines[0].startswith("3 of 3 layers") and lines[0].endswith("conv1, fc2, fc3")
    for name, array in load_checkpoint(run).params.items():
        np.testing.assert_array_equal(net.params[name].data, array)


def test_a_new_head(run):
    """For other classes it is needed; for the same number it may be asked for."""
    other = small_net(seed=5, classes=7)
    before = values(other)
    with pytest.raises(CheckpointError, match="'fc3' does not fit, fc3.w is 32 x 4 there, 32 x 7 here; add --new"):
        load_pretrained(other, run)
    assert all(np.array_equal(before[name], array) for name, array in values(other).items())
    for net in (other, small_net(seed=5)):
        fresh = values(net)["fc3.w"]
        lines = load_pretrained(net, run, new_head=True)
        assert lines[0].startswith("2 of 3") and lines[1:] == ["initialised anew: fc3 (a new head)"]
        np.testing.assert_array_equal(net.params["fc3.w"].data, fresh)


def test_what_does_not_fit_is_named(run):
    """Images of another size: fc2 has other inputs, and neither its weights nor its biases are loaded."""
    net = small_net(size=32, seed=5)
    fresh = values(net)
    lines = load_pretrained(net, run)
    assert lines[0].endswith(": conv1, fc3") and lines[1].startswith("initialised anew: fc2 (fc2.w is ")
    np.testing.assert_array_equal(net.params["fc2.b"].data, fresh["fc2.b"])


def test_nothing_fits(run, tmp_path):
    from minicnn.models.cifar import cifar_18pct
    with pytest.raises(CheckpointError, match="none of its layers has the name and shape"):
        load_pretrained(cifar_18pct(device="reference"), run)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_pretrained(small_net(), tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("frozen", [("conv1",), ("conv1", "fc2"), ("fc2",)])
def test_frozen_layers_stay_and_the_others_do_not_notice(frozen, tmp_path):
    recipe = small_recipe()
    optimiser = dataclasses.replace(recipe.optimiser, layer_lr=dict.fromkeys(frozen, 0.0))
    recipe = dataclasses.replace(recipe, optimiser=optimiser)
    trainer = small_trainer(tmp_path / "run", recipe=recipe)
    before = values(trainer.net)
    trainer.fit(1)
    for name, array in values(trainer.net).items():
        assert np.array_equal(before[name], array) == (name.rpartition(".")[0] in frozen), name


@pytest.mark.parametrize("frozen", [(), ("conv1",), ("conv1", "fc2"), ("fc2",), ("conv1", "fc2", "fc3")])
def test_backward_leaves_out_what_only_frozen_layers_need(frozen):
    """The gradients of the others are the same bits; theirs and what only they need are not computed."""
    x, labels = images(small_net(), 3)
    gradients = []
    for freeze in ((), frozen):
        net = small_net()
        net.freeze(freeze)
        net.loss(x, labels, sample_ids=np.arange(3, dtype=np.uint32))
        net.backward()
        gradients.append({name: np.array(param.grad) for name, param in net.params.items()})
    names = ["conv1", "fc2", "fc3"]
    first = next((i for i, name in enumerate(names) if name not in frozen), len(names))
    for name, array in gradients[1].items():
        layer = name.rpartition(".")[0]
        if layer in names[first:] and layer not in frozen:
            np.testing.assert_array_equal(array, gradients[0][name])
        else:
            assert not array.any()


def test_freezing_what_is_not_there():
    with pytest.raises(ConfigError, match="'small' has no layer with weights called 'conv9' to freeze"):
        small_net().freeze(["conv9"])
    with pytest.raises(ConfigError, match="layer_lr names 'conv9'"):
        SGDRecipe(layer_lr={"conv9": 0.0}).lr_mults(small_net())
