"""Training diagnostics: warnings at the end of an epoch or of 2,000 steps, each given once, with what to try.

    stuck           the loss is the entropy of the labels: nothing is known but how frequent each class is
    worse           it is well above that
    dead units      a layer in which half of the ReLUs are 0 whatever the image is
    update ratio    |update| / |w|: how much one step changes an array; about 1e-3 is usual, 1e-4 to 1e-2 is fine
    chance          training goes well, and validation is no better than always predicting one class

Advice never contradicts itself: the first warning that asks for a higher or a lower learning rate settles the
direction, and later ones that would ask for the opposite name another remedy.

Checked are means over the images since the last check, samples of the weights and their updates, and some validation
images. Nothing is changed and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minicnn.evaluate.metrics import majority
from minicnn.layers.activation import ReLU

STUCK, WORSE = 0.98, 1.5                    # of the entropy of the labels
DEAD = 0.5                                  # of a layer's units
HIGH, LOW = 0.05, 1e-6                      # of the update ratio
SAMPLE = 1 << 16                            # elements of an array that are looked at
FEW = 64                                    # images that it takes to call a unit dead


OTHER_WEIGHTS = "try other initial weights (init= of the layers)"


@dataclass(frozen=True)
class Finding:
    """A problem. advice: what to try; it asks for a learning rate in this direction, "lower" or "higher", if in any.
    otherwise: what to try where the opposite was advised."""

    text: str
    direction: str = ""
    advice: str = ""
    otherwise: str = ""


class Diagnostics:
    """labels: of the training images.   other_weights: what to try in place of the initial weights."""

    def __init__(self, labels: np.ndarray, other_weights: str = OTHER_WEIGHTS):
        self.other_weights = other_weights
        share = np.bincount(labels) / len(labels)
        share = share[share > 0]
        self.entropy, self.majority = float(-(share * np.log(share)).sum()), float(share.max())
        self._given: set[str] = set()
        self._before = ""
        self._direction = ""                    # "lower" or "higher": which learning rate was advised

    def check(self, train: dict, val, net, updates: dict, factor: float, images: Iterable = ()) -> list[str]:
        """Warnings, one line each.

        train: {"loss", "top1"}.   val: an Evaluation, or None within an epoch.   updates: name -> `sample_of`
        the last update of a parameter.   factor: of the schedule; small updates are expected where it is small.
        images: batches of them, as the net takes them.
        """
        found = {**dead_units(net, images, self.other_weights), **self._loss(train),
                 **self._updates(net, updates, factor)}
        if val:
            found["chance"] = Finding(self._chance(train, val))
        fresh = {what: finding for what, finding in found.items() if finding.text and what not in self._given}
        self._given.update(fresh)
        return [f"warning: {self._with_advice(finding)}" for finding in fresh.values()]

    def _with_advice(self, finding: Finding) -> str:
        agrees = not finding.direction or self._direction in ("", finding.direction)
        if agrees:
            self._direction = finding.direction or self._direction
        return finding.text + (finding.advice if agrees else finding.otherwise)

    def _loss(self, train: dict) -> dict[str, Finding]:
        if not self.entropy:                                                   # a single class: nothing to learn
            return {}
        loss, share = train["loss"], train["loss"] / self.entropy
        stuck = STUCK <= share <= WORSE and train["top1"] <= self.majority + 0.01
        state = "worse" if share > WORSE else "stuck" if stuck else ""
        again, self._before = state == self._before, state                     # once, it may be the initialisation
        if state == "stuck" and again:
            return {"stuck": Finding(
                f"the loss stays at {loss:.3f}; {self.entropy:.3f} is what knowing only how frequent each class is "
                "gives. Nothing is learned: ",
                "higher", "try a learning rate three times as high, larger initial weights, and look at some training "
                "images with their labels",
                f"{self.other_weights}, and look at some training images with their labels")}
        if state == "worse" and again:
            return {"worse": Finding(
                f"the loss is {loss:.3f} once more, where {self.entropy:.3f} could be had without looking "
                "at the images: ",
                "lower", "try a third of the learning rate", self.other_weights)}
        return {}

    def _chance(self, train: dict, val) -> str:
        learned = train["top1"] >= self.majority + 0.6 * (1 - self.majority)
        if learned and val.top1 <= majority(val.labels):
            return (f"training accuracy is {100 * train['top1']:.0f} %, validation accuracy {100 * val.top1:.0f} %, no "
                    f"better than always predicting one class ({100 * majority(val.labels):.0f} %). If the labels of "
                    "both belong to their images, and the classes are in the same order, there are too few images: try "
                    "more augmentation")
        return ""

    @staticmethod
    def _updates(net, updates: dict, factor: float) -> dict[str, Finding]:
        found = {}
        for name, update in updates.items():
            if not name.endswith(".w") or net.params[name].data.ndim < 2:     # scales of a normalisation may begin at 0
                continue
            size = float(np.linalg.norm(sample_of(net.ops, net.params[name].data)))
            ratio = float(np.linalg.norm(update)) / size if size else 0.0
            if ratio > HIGH:
                found[f"high {name}"] = Finding(
                    f"a step changes {name} by {ratio:.1g} of its norm, where 0.001 is usual: ",
                    "lower", "try a lower learning rate, or a factor on that of this layer",
                    "try a factor below 1 on the learning rate of this layer")
            elif ratio < LOW and factor > 0.1:
                found[f"low {name}"] = Finding(
                    f"a step changes {name} by {ratio:.1g} of its norm, where 0.001 is usual: it hardly learns; ",
                    "higher", "try a higher learning rate, or larger initial weights in the layers after it",
                    "try a factor above 1 on the learning rate of this layer, or larger initial weights in the layers "
                    "after it")
        return found


def dead_units(net, images: Iterable, other_weights: str = OTHER_WEIGHTS) -> dict[str, Finding]:
    """Layers in which more than DEAD of the channels are 0 for some FEW images or more, as warnings by name."""
    names = [node.name for node in net.nodes if isinstance(node.layer, ReLU)]
    alive, count = {}, 0
    for x in images:
        net.forward(x, keep=names)
        for name in names:
            y = np.asarray(net.ops.to_host(net.activation(name)))
            alive[name] = (y.reshape(-1, y.shape[-1]) > 0).any(axis=0) | alive.get(name, False)
        count += len(x)
        if count >= FEW:
            break
    net.forget(names)
    found = {}
    for name, lives in alive.items() if count >= FEW else ():
        if (~lives).mean() > DEAD:
            found[f"dead {name}"] = Finding(
                f"{name}: {(~lives).sum():,} of {len(lives):,} units are 0 for each of {count} images, and learn no "
                "more: ",
                "lower", f"try a lower learning rate, or {other_weights.removeprefix('try ')}", other_weights)
    return found


def sample_of(ops, array) -> np.ndarray:
    """Some elements of an array, evenly spaced, on the host."""
    flat = array.reshape(-1)
    return np.asarray(ops.to_host(flat[:: max(1, flat.size // SAMPLE)]), np.float64)
