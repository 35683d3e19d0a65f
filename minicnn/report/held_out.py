"""What the network predicts for held-out images: accuracy by class, confusions, and the photographs that are shown."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.scan import scan
from minicnn.errors import DataError, MinicnnError, one_line
from minicnn.evaluate.evaluate import Evaluation, evaluate
from minicnn.evaluate.fold import folded
from minicnn.evaluate.metrics import majority
from minicnn.evaluate.predict import check_finite
from minicnn.experiment.prepare import sets_for
from minicnn.experiment.say import say
from minicnn.experiment.settings import settle
from minicnn.report.run import Run

MULTIPLY_ADDS = 1.5e12              # of the predictions; about 15 seconds on two cores
IMAGES = 2000                       # at most, however small the network
MISTAKES, OTHERS, BARS = 8, 4, 5    # photographs shown: predicted wrongly, at random; classes under each
TABLE, PAIRS = 12, 10               # classes of a table of confusions; more have a list of so many


@dataclass
class HeldOut:
    """images: those that were predicted, of `of` in the set.   part: "test" or "val".   found: what was predicted."""

    images: Dataset
    of: int
    part: str
    found: Evaluation

    @property
    def guesses(self) -> np.ndarray:
        """(N,) the most probable class."""
        return self.found.probabilities.argmax(axis=1)

    @property
    def majority(self) -> float:
        return majority(self.found.labels)


@dataclass(frozen=True)
class Missing:
    """A section that cannot be made.   reason: in one line."""

    reason: str


def held_out(run: Run, options: argparse.Namespace) -> HeldOut | Missing:
    """Predictions for images of the run's test set, or of its validation set where there is none; Missing where they
    are gone."""
    try:
        settings = settle(argparse.Namespace(data=options.data, out=options.runs), run.checkpoint)
        splits, _ = sets_for(settings, run.meta, run.pipeline.preprocess)
        if splits.classes != run.classes:
            raise DataError(f"{splits.name} has the classes {', '.join(splits.classes[:5])}, the run was trained on "
                            f"{', '.join(run.classes[:5])}; name a folder with those: --data DIR")
        part, whole = ("val", splits.val) if splits.test is None else ("test", splits.test)
        images = whole.select(chosen(len(whole), options.images or most_images(run.macs)))
        scan(images)
    except (MinicnnError, OSError) as error:
        return Missing(one_line(error))
    say("predictions", f"of {len(images):,} of {len(whole):,} held-out images")
    found = evaluate(folded(run.net), images, run.pipeline, batch=batch_for(run.macs), title="predictions")
    check_finite(found.probabilities, "the network's outputs", " for held-out images")
    return HeldOut(images, len(whole), part, found)


def most_images(macs: int) -> int:
    """How many images are predicted without being asked for, by a network of so many multiply-adds."""
    return int(np.clip(MULTIPLY_ADDS // macs, 50, IMAGES))


def batch_for(macs: int) -> int:
    return int(np.clip(5e10 // macs, 1, 64))


def chosen(count: int, most: int) -> np.ndarray:
    """Indices of at most so many images, the same in every report, in their order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def confusion(held: HeldOut, classes: list[str]) -> dict:
    """{"counts": (K, K) rows true, columns predicted; "pairs": the most frequent mistakes (true, predicted, count);
    "by_class": (class, accuracy, images), the worst first; "table": whether there are few enough classes for one;
    "classes": their names}."""
    K, labels = len(classes), held.found.labels
    counts = np.bincount(labels * K + held.guesses, minlength=K * K).reshape(K, K)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [(int(n) // K, int(n) % K, int(wrong.flat[n])) for n in order if wrong.flat[n]]
    return {"counts": counts, "pairs": pairs, "by_class": held.found.by_class()[:TABLE], "table": K <= TABLE,
            "classes": classes}


def shown(held: HeldOut) -> np.ndarray:
    """Which images are shown: the mistakes of highest probability first, then some of the others at random."""
    probability = held.found.probabilities.max(axis=1)
    wrong = np.flatnonzero(held.guesses != held.found.labels)
    mistakes = wrong[np.argsort(-probability[wrong], kind="stable")][:MISTAKES]
    others = np.random.default_rng(0).permutation(np.flatnonzero(held.guesses == held.found.labels))[:OTHERS]
    return np.concatenate([mistakes, others])


def bars(held: HeldOut, image: int) -> list[tuple[int, float]]:
    """(class, probability) of the most probable classes; the true one is the last where it is not among them."""
    probabilities, label = held.found.probabilities[image], int(held.found.labels[image])
    best = np.argsort(-probabilities, kind="stable")[:BARS].tolist()
    if label not in best:
        best[-1] = label
    return [(k, float(probabilities[k])) for k in best]
