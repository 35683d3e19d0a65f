"""A sanity check of pictures: the same with newly initialised layers (Adebayo et al., NeurIPS 2018).

Layers are newly initialised one after the other, from the top down. A picture that stays as it was does not depend on
what these layers have learned, however convincing it looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minicnn.visualize.features.layers import depends_on

STAGES = 4


@dataclass(frozen=True)
class Stage:
    """layers: newly initialised ones, from the top down.   picture: of the network with them.   similarity: Spearman's
    rank correlation of the absolute values with those of the trained network's picture, from -1 to 1."""

    layers: list[str]
    picture: np.ndarray
    similarity: float

    @property
    def words(self) -> str:
        """For a label."""
        return self.layers[0] if len(self.layers) == 1 else f"{self.layers[0]} to {self.layers[-1]}"


def cascade(net, top: str, seed: int) -> Iterator[tuple[str, object]]:
    """(layer, network) for each layer with weights on which `top` depends, from the top down.

    The network is one copy of `net`, in which this layer and all before it in the cascade are newly initialised, each
    by its own initialiser; its state, such as running statistics, as well.
    """
    changed = net.copy()
    for node in reversed(depends_on(net, top)):
        if net[node.name].params:
            _initialise(changed, node.name, seed)
            yield node.name, changed


def _initialise(net, name: str, seed: int) -> None:
    twin = net[name].copy()
    twin.init_params(name, seed, net.dtype)
    for local, param in twin.params.items():
        net[name].params[local].data[...] = net.ops.from_host(param.data)
    for local, array in twin.state.items():
        net[name].state[local][...] = net.ops.from_host(array)


def sanity(net, picture: Callable[[object], np.ndarray], top: str, *, stages: int = STAGES,
           seed: int | None = None) -> list[Stage]:
    """The picture, an array, of networks with newly initialised layers from `top` down; at most `stages` of them, the
    first and the last included."""
    names = [node.name for node in reversed(depends_on(net, top)) if net[node.name].params]
    chosen = set(np.unique(np.rint(np.linspace(0, len(names) - 1, min(stages, len(names)))).astype(int)).tolist())
    trained, found = picture(net), []
    for number, (_, changed) in enumerate(cascade(net, top, net.seed + 1 if seed is None else seed)):
        if number in chosen:
            other = picture(changed)
            found.append(Stage(names[:number + 1], other, rank_correlation(np.abs(trained), np.abs(other))))
    return found


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing one; 0 where all values of one are equal."""
    ranks = [_ranks(values.ravel()) for values in (one, other)]
    if any(np.ptp(each) == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """The mean rank of each value among its equals."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
