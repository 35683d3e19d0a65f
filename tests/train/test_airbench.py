"""airbench93 and what its recipe has of its own: whitening, lookahead, layers frozen after some epochs, six views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minicnn import Builder
from minicnn.errors import ConfigError
from minicnn.init import Dirac
from minicnn.models import airbench93
from minicnn.train.lookahead import LookaheadRecipe
from minicnn.train.recipe import Recipe
from minicnn.train.recipes import named_recipe
from minicnn.train.whiten import whiten
from tests.helpers.small_run import small_net, small_recipe, small_trainer


def whitener(filters=24, size=9):
    b = Builder((size, size, 3))
    b.conv("first", filters, 2)
    b.flatten()
    b.linear("fc", 3)
    b.loss()
    return b.net(device="reference")


def test_whitened_patches_are_uncorrelated(rng):
    """Their second moments become the unit matrix, up to eps; the second half of the filters is minus the first."""
    net, mixed = whitener(), rng.standard_normal((3, 3))
    images = [(rng.standard_normal((20, 9, 9, 3)) @ mixed).astype("f4") for _ in range(2)]
    whiten(net, "first", images, eps=1e-9)
    w = net.params["first.w"].data
    np.testing.assert_array_equal(w[..., 12:], -w[..., :12])
    first = np.concatenate([naive_convolution(x, w[..., :12]).reshape(-1, 12) for x in images])
    np.testing.assert_allclose(first.T @ first / len(first), np.eye(12), atol=1e-4)
    sizes = np.linalg.norm(w[..., :12].reshape(-1, 12), axis=0)
    assert (np.diff(sizes) > 0).all()                       # the largest eigenvalue first


def naive_convolution(x, w):
    R, S = w.shape[:2]
    P, Q = x.shape[1] - R + 1, x.shape[2] - S + 1
    return sum(x[:, r:r + P, s:s + Q].astype("f8") @ w[r, s] for r in range(R) for s in range(S))


def test_what_cannot_whiten():
    for layer in ("fc", "nothing"):
        with pytest.raises(ConfigError, match=f"whiten names '{layer}', expected a convolution"):
            whiten(whitener(), layer, [])
    with pytest.raises(ConfigError, match="'first' has 10 filters of 2 x 2 x 3; expected 24"):
        whiten(whitener(10), "first", [])


def test_lookahead_follows_its_formula(rng):
    net = small_net()
    w = net.params["fc2.w"].data
    slow = w.copy()
    lookahead = LookaheadRecipe(every=2, factor=0.5, power=2).make(net)
    lookahead.begin()
    w += 1
    lookahead.step(1, 5)                                    # between two updates
    np.testing.assert_array_equal(w, slow + 1)
    for step, kept in ((2, 0.5 * (2 / 5) ** 2), (4, 0.5 * (4 / 5) ** 2)):
        slow = kept * slow + (1 - kept) * w
        lookahead.step(step, 5)
        np.testing.assert_allclose(w, slow, rtol=1e-5, atol=1e-6)
        slow = w.copy()
        w += 1
    lookahead.step(5, 5)                                    # the last one
    np.testing.assert_array_equal(w, slow)


@pytest.mark.parametrize("setting", [{"every": 0}, {"factor": 1.5}, {"power": -1}])
def test_lookahead_settings(setting):
    with pytest.raises(ConfigError, match=f"Lookahead: {next(iter(setting))}"):
        LookaheadRecipe(**setting)


def with_everything():
    """A recipe whose lookahead acts within an epoch, and which freezes a layer after one epoch."""
    return replace(small_recipe(), lookahead=LookaheadRecipe(every=5), freeze_after={"conv1": 1})


def test_frozen_after_an_epoch_and_resumed(tmp_path):
    """The layer learns in the first epoch alone; a run that was resumed has the same weights and slow weights."""
    whole = small_trainer(tmp_path / "whole", recipe=with_everything())
    start = whole.net.params["conv1.w"].data.copy()
    whole.fit(1)
    first = {name: param.data.copy() for name, param in whole.net.params.items()}
    assert not np.array_equal(first["conv1.w"], start)
    resumed = small_trainer(tmp_path / "whole", recipe=with_everything()).resume()
    whole.fit(3)
    resumed.folder.path.joinpath("last.safetensors").unlink()
    resumed.fit(3)
    for name, param in whole.net.params.items():
        np.testing.assert_array_equal(resumed.net.params[name].data, param.data)
        assert np.array_equal(first[name], param.data) == name.startswith("conv1"), name
    for name, slow in whole.state.lookahead.arrays.items():
        np.testing.assert_array_equal(resumed.state.lookahead.arrays[name], slow)
        np.testing.assert_array_equal(whole.net.arrays()[name], slow)


def test_the_recipe_is_theirs():
    """In their terms: the learning rate of the sum of the losses, the weight decay of a step at the peak."""
    entry = named_recipe("airbench93", "published")
    optimiser, schedule = entry.recipe.optimiser, entry.schedule(11)
    scale = 1024 * (1 + 1 / (1 - 0.85))
    assert optimiser.lr / 1024 == pytest.approx(11.5 / scale)
    assert optimiser.lr * optimiser.decay == pytest.approx(0.0153 * 1024 / scale)
    net = airbench93(device="reference")
    mults, decays = optimiser.lr_mults(net), optimiser.decays(net)
    assert (mults["block1_bn1.b"], mults["whiten.b"], mults["fc.w"]) == (64, 1, 1)
    assert optimiser.lr * 64 * decays["block1_bn1.b"] == pytest.approx(optimiser.lr * optimiser.decay)
    assert "whiten.w" not in optimiser.make(net).trained
    default = named_recipe("airbench93", "default").recipe                  # it does not whiten
    assert "whiten.w" in default.optimiser.make(net).trained
    factors = [schedule.factor(11 * part) for part in (0, 0.115, 0.23, 0.615, 1)]
    assert factors == pytest.approx([0.2, 0.6, 1, 0.535, 0.07])
    assert Recipe.from_dict(entry.recipe.to_dict()) == entry.recipe


def test_dirac_passes_its_channels_on(rng):
    w = Dirac()(0, "w", (3, 3, 4, 6), "float64")
    x = rng.standard_normal((1, 5, 5, 4))
    np.testing.assert_array_equal(naive_convolution(x, w)[..., :4], x[:, 1:-1, 1:-1])
    assert 0.9 / 6 < np.abs(w[..., 4:]).max() <= 1 / 6      # U(-1/sqrt(36), 1/sqrt(36))
    with pytest.raises(ConfigError, match="Dirac initialises weights of convolutions"):
        Dirac()(0, "w", (4, 6), "float64")
