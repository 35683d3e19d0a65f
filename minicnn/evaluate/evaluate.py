"""Loss and accuracy on images that a network has not learned from: on the central crop, or as a paper did it.

    batch -> pipeline.views(one crop, or many) -> net.forward -> softmax, averaged over the views -> accuracy
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.evaluate.metrics import RunningMetrics
from minicnn.evaluate.protocols import PROTOCOLS, Protocol
from minicnn.system.progress import progress_of


@dataclass
class Evaluation:
    """loss: mean cross-entropy.   top1, top5: accuracy, 0..1.   probabilities float32 (N, K), labels (N,)."""

    loss: float
    top1: float
    top5: float
    probabilities: np.ndarray
    labels: np.ndarray

    def __str__(self) -> str:
        top5 = f", top-5 {100 * self.top5:.1f} %" if self.probabilities.shape[1] > 5 else ""
        return f"accuracy {100 * self.top1:.1f} %{top5}, loss {self.loss:.4f}"

    def by_class(self) -> list[tuple[int, float, int]]:
        """(class, accuracy, images) of every class that has images, the worst first."""
        correct = self.probabilities.argmax(axis=1) == self.labels
        counted = [(k, float(correct[self.labels == k].mean()), int((self.labels == k).sum()))
                   for k in np.unique(self.labels).tolist()]
        return sorted(counted, key=lambda entry: entry[1])


def averaged(results: Sequence[Evaluation]) -> Evaluation:
    """An ensemble, such as the five networks of the AlexNet paper's section 5: the mean of their softmax outputs."""
    return _evaluation(sum(result.probabilities for result in results) / len(results), results[0].labels)


def _evaluation(probabilities: np.ndarray, labels: np.ndarray) -> Evaluation:
    own = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
    metrics = RunningMetrics()
    metrics.add(-np.log(own, dtype=np.float64).mean(), probabilities, labels)
    return Evaluation(**metrics.result(), probabilities=probabilities, labels=labels)


def evaluate(net, dataset: Dataset, pipeline: InputPipeline, *, batch: int = 128, ten_crop: bool = False,
             protocol: Protocol | None = None, scales: Sequence[int] = (), title: str = "evaluating",
             progress: bool = True, stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
    """Loss and accuracy of `net` on all images of `dataset`; None when `stop()` became true on the way.

    protocol: what it sees of each image, one of PROTOCOLS; default the central crop, or with `ten_crop` ten.   scales:
    sizes of the short side, in place of the protocol's.
    """
    probabilities, done = np.empty((len(dataset), net.num_classes), np.float32), 0
    protocol = protocol or PROTOCOLS["ten-crop" if ten_crop else "crop"]
    with progress_of(title, len(dataset), progress) as seen:
        probabilities_of = protocol.of(net, pipeline, batch, scales, seen)
        for images in Loader(dataset, batch).epoch(0):
            if stop():
                return None
            count = len(images.labels)
            probabilities[done:done + count] = probabilities_of(images)
            done += count
    return _evaluation(probabilities, dataset.labels)
