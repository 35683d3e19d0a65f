"""How good a net is on images it has not learned from: the central crop, or the average of the softmax over ten crops.

Section 4.1 of the paper: "At test time, the network makes a prediction by extracting five 224 x 224 patches (the four
corner patches and the center patch) as well as their horizontal reflections (hence ten patches in all), and averaging
the predictions made by the network's softmax layer on the ten patches."
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.evaluate.metrics import RunningMetrics


@dataclass
class Evaluation:
    """loss: mean cross-entropy.   top1, top5: shares of right answers.   probabilities float32 (N, K), labels (N,)."""

    loss: float
    top1: float
    top5: float
    probabilities: np.ndarray
    labels: np.ndarray

    def __str__(self) -> str:
        top5 = f", {100 * self.top5:.1f} % in the top 5" if self.probabilities.shape[1] > 5 else ""
        return f"{100 * self.top1:.1f} % right{top5}, loss {self.loss:.4f}"

    def by_class(self) -> list[tuple[int, float, int]]:
        """(class, share of right answers, images) of every class that has images, the worst first."""
        right = self.probabilities.argmax(axis=1) == self.labels
        counted = [(k, float(right[self.labels == k].mean()), int((self.labels == k).sum()))
                   for k in np.unique(self.labels).tolist()]
        return sorted(counted, key=lambda entry: entry[1])


def averaged(results: Sequence[Evaluation]) -> Evaluation:
    """Several networks as one (section 5 of the paper averages the predictions of five): the mean of their softmax."""
    return _evaluation(sum(result.probabilities for result in results) / len(results), results[0].labels)


def _evaluation(probabilities: np.ndarray, labels: np.ndarray) -> Evaluation:
    own = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
    tally = RunningMetrics()
    tally.add(-np.log(own, dtype=np.float64).mean(), probabilities, labels)
    return Evaluation(**tally.result(), probabilities=probabilities, labels=labels)


def evaluate(net, dataset: Dataset, feed: InputPipeline, *, batch: int = 128, ten_crop: bool = False,
             title: str = "evaluating", progress: bool = True,
             stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
    """Loss and accuracy of `net` on all images of `dataset`; None when `stop()` became true on the way."""
    from tqdm import tqdm

    probabilities, done = np.empty((len(dataset), net.num_classes), np.float32), 0
    loader = Loader(dataset, batch)
    show = progress and sys.stderr.isatty()
    with tqdm(total=len(dataset), desc=title, unit=" images", leave=False, dynamic_ncols=True, disable=not show) as bar:
        for images in loader.epoch(0):
            if stop():
                return None
            crops = [_probabilities(net, x) for x in feed.test(images, ten_crop)]
            probabilities[done:done + len(images.labels)] = np.mean(crops, axis=0)             # (10, n, K) -> (n, K)
            done += len(images.labels)
            bar.update(len(images.labels))
    return _evaluation(probabilities, dataset.labels)


def _probabilities(net, x) -> np.ndarray:
    """Softmax of the net's output on images x, in float64 so that a small one is not rounded to 0; (N, K)."""
    logits = np.asarray(net.ops.to_host(net.forward(x, train=False)), np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
