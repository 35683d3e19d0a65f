"""Every optimiser, with an average of the weights, under each parallel scheme: what a single process computes."""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.parallel.parallel_net import SCHEMES
from minicnn.parallel.threads import run_local
from minicnn.train.adam import Adam, AdamW
from minicnn.train.average import WeightAverage
from minicnn.train.recipe import SGDRecipe
from minicnn.train.sgd import SGD
from tests.parallel.test_state import batch, net

MAKERS = {"sgd": lambda net: SGD(net, lr=0.05, lr_in_velocity=False, nesterov=True, decoupled=True),
          "adam": lambda net: Adam(net, lr=0.01, eps=1e-3, decay=0.1),
          "adamw": lambda net: AdamW(net, lr=0.01, eps=1e-3)}


def trained(own, make, steps: int = 5) -> dict[str, np.ndarray]:
    """Unsharded arrays after some steps, on rank 0: weights, state, those of the optimiser, averages."""
    x, labels = batch()
    optimiser, rows = make(own), own.ranks.local_rows(len(x))
    optimiser.average = WeightAverage(own, 0.8)
    for step in range(steps):
        own.loss(x[rows], labels[rows], sample_ids=np.arange(len(x))[rows], epoch=step)
        own.backward()
        optimiser.step()
    assert optimiser.average.to_dict() == {"steps": steps}
    slots = {"": own.arrays(), **optimiser.arrays, "average": optimiser.average.arrays}
    return {f"{slot} {name}": np.array(array) for slot, arrays in slots.items()
            for name, array in own.ranks.gather(arrays).items()}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_ranks_compute_what_a_single_process_does(scheme, make):
    alone = trained(net(), make)
    two = run_local(2, lambda comm: trained(SCHEMES[scheme](net(), comm), make))[0]
    assert two.keys() == alone.keys()
    for name, array in alone.items():
        np.testing.assert_allclose(two[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_rank_finds_its_batch_normalisation(scheme):
    """Which may have a weight decay of its own."""
    def decays(comm):
        b = Builder((5, 5, 4))
        b.conv("conv1", 4, 3)
        b.batchnorm("bn1", sync=True)
        b.flatten("flat")
        b.linear("fc1", 6)
        b.batchnorm("bn2")
        b.linear("fc2", 4)
        b.loss("loss")
        return SGDRecipe(norm_decay=0.0).make(SCHEMES[scheme](b.net(device="reference"), comm)).decays

    assert run_local(2, decays) == 2 * [dict.fromkeys(("bn1.w", "bn1.b", "bn2.w", "bn2.b"), 0.0)]
