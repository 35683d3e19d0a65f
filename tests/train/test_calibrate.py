"""Data-dependent initialisation: every channel's mean and standard deviation; runs start and resume with it."""

import dataclasses

import numpy as np
import pytest

from minicnn.errors import ConfigError
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.train.calibrate import calibrate, calibrate_on
from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers.graphs import images, small
from tests.helpers.small_run import small_net, small_recipe, small_trainer

WANTED = {"conv1": 3.0, "fc2": 1.0, "fc3": 0.2}


def outputs(net, x, layer):
    net.forward(x, keep=[layer])
    y = np.array(net.activation(layer))
    return y.reshape(-1, y.shape[-1])


def test_each_channel_has_mean_0_and_this_standard_deviation(rng):
    net = small_net()
    batches = [50 * rng.standard_normal((16, 24, 24, 3)).astype("f4") for _ in range(3)]
    calibrate(net, batches, WANTED)
    for layer, std in WANTED.items():
        y = np.concatenate([outputs(net, x, layer) for x in batches])
        np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-5 * std)
        np.testing.assert_allclose(y.std(axis=0), std, rtol=1e-4)


def test_layers_that_are_not_named_stay(rng):
    net, before = small(), small()
    x, _ = images(net, 6)
    calibrate(net, [x], {"conv2": 2.0})
    for name, param in net.params.items():
        assert np.array_equal(param.data, before.params[name].data) == (not name.startswith("conv2")), name
    assert outputs(net, x, "conv2").std() == pytest.approx(2.0)


def test_a_channel_that_hardly_varies_is_not_amplified():
    net = small_net()
    net.params["fc2.w"].data[:, 5] = 0
    x = np.random.default_rng(1).standard_normal((8, 24, 24, 3)).astype("f4")
    calibrate(net, [x], {"fc2": 1.0})
    assert np.isfinite(net.params["fc2.w"].data).all() and not net.params["fc2.w"].data[:, 5].any()


def test_what_cannot_be_calibrated_is_named():
    net = small_net()
    x = np.zeros((2, 24, 24, 3), "f4")
    with pytest.raises(ConfigError, match="calibrate names 'conv7', .* expected some of conv1, fc2, fc3"):
        calibrate(net, [x], {"conv7": 1.0})
    with pytest.raises(ConfigError, match="conv1 gives the same for all images"):
        calibrate(net, [x], {"conv1": 1.0})


def test_a_run_starts_so_and_resumes_bit_for_bit(tmp_path):
    recipe = dataclasses.replace(small_recipe(), calibrate=WANTED)
    lines = []
    whole = small_trainer(tmp_path / "whole", recipe=recipe, say=lines.append)
    whole.fit(2)
    at = lines.index("calibrated   outputs of conv1, fc2, fc3 on 96 images")
    assert lines[at - 1] == "calibrating  the initial weights of conv1, fc2, fc3"
    small_trainer(tmp_path / "parts", recipe=recipe).fit(1)
    again = small_trainer(tmp_path / "parts", recipe=recipe).resume()
    again.fit(2)
    ours, theirs = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    for name, array in ours.params.items():
        np.testing.assert_array_equal(array, theirs.params[name])
    plain = small_trainer(tmp_path / "plain")
    plain.fit(2)
    assert (plain.net.params["conv1.w"].data != whole.net.params["conv1.w"].data).any()


def test_preparing_first_changes_nothing(tmp_path):
    """prepare() may be called by itself, to look at the pipeline; the run is calibrated all the same."""
    recipe = dataclasses.replace(small_recipe(), calibrate=WANTED)
    first, second = (small_trainer(tmp_path / name, recipe=recipe) for name in ("first", "second"))
    second.prepare()
    for trainer in (first, second):
        trainer.fit(1)
    np.testing.assert_array_equal(first.net.params["conv1.w"].data, second.net.params["conv1.w"].data)
    np.testing.assert_array_equal(first.state.start, second.state.start)


@pytest.mark.parametrize("scheme", ["columns", "data"])
def test_several_ranks_begin_with_the_weights_of_one(tmp_path, scheme):
    """Rank 0 calibrates the whole network, on the same images as a single process."""
    recipe = dataclasses.replace(small_recipe(), calibrate=WANTED)
    alone = small_trainer(tmp_path / "alone", recipe=recipe)
    calibrate_on(alone.net, WANTED, alone.loader, alone.prepare())

    def body(comm):
        trainer = small_trainer(tmp_path / "ranks", recipe=recipe, net=SCHEMES[scheme](small_net(), comm))
        pipeline = trainer.prepare()
        said = calibrate_on(trainer.net, WANTED, trainer.loader, pipeline)
        return said, trainer.net.ranks.gather(trainer.net.arrays())

    (said, whole), _ = run_local(2, body)
    assert said == "outputs of conv1, fc2, fc3 on 96 images"
    for name, array in alone.net.arrays().items():
        np.testing.assert_array_equal(whole[name], array, err_msg=name)
