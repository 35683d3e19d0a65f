"""PyTorch's side of a training step: its fastest form computes the same as its plain one."""

from __future__ import annotations

import alexnet_twins
import numpy as np
import pytest
from alexnet_twins import their_training, torch_alexnet
from devices import Host

torch = pytest.importorskip("torch")


def test_lrn_by_shifted_squares_is_pytorchs():
    plain, shifted = (next(layer for layer in torch_alexnet(torch, shifted=shifted) if "LRN" in type(layer).__name__)
                      for shifted in (False, True))
    x = 100 * torch.randn((2, 16, 3, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifted(x), plain(x), rtol=1e-12, atol=0)
    assert type(plain) is not type(shifted) and not torch.equal(plain(x), x)


def test_a_whole_step_is_captured(monkeypatch):
    """Forward, backward and SGD are inside of what is captured, once; the replays go on training."""
    captured = []

    class Capturing(Host):
        @staticmethod
        def captured(function, times):
            captured.append(times)
            return function

    monkeypatch.setattr(alexnet_twins, "COMPILED", {})      # which takes minutes, and is PyTorch's business
    torch.manual_seed(0)
    twin = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((4, 2, 2, 3), np.float32), np.array([0, 1, 2, 0])
    step = their_training(torch, "step", twin, images, labels, Capturing)
    losses = [step() for _ in range(3)]
    assert captured == [1] and losses == sorted(losses, reverse=True) and len(set(losses)) == 3
