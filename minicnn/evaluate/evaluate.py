"""Loss and accuracy on images that a network has not learned from: on the central crop, or averaged over ten crops.

    batch -> pipeline.views(one crop, or ten) -> net.forward -> softmax, averaged over the crops -> accuracy
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.evaluate.crops import one_crop, ten_crops
from minicnn.evaluate.metrics import RunningMetrics
from minicnn.system.terminal import is_terminal


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
             title: str = "evaluating", progress: bool = True,
             stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
    """Loss and accuracy of `net` on all images of `dataset`; None when `stop()` became true on the way."""
    from tqdm import tqdm

    crops = ten_crops if ten_crop else one_crop
    probabilities, done = np.empty((len(dataset), net.num_classes), np.float32), 0
    loader = Loader(dataset, batch)
    show = progress and is_terminal()
    with tqdm(total=len(dataset), desc=title, unit=" images", leave=False, dynamic_ncols=True, disable=not show) as bar:
        for images in loader.epoch(0):
            if stop():
                return None
            count = len(images.labels)
            draws = crops(count, pipeline.crop, images.images.shape[1:3])
            of_crops = [_probabilities(net, x) for x in pipeline.views(images, draws)]
            probabilities[done:done + count] = np.mean(of_crops, axis=0)                       # (10, n, K) -> (n, K)
            done += count
            bar.update(count)
    return _evaluation(probabilities, dataset.labels)


def _probabilities(net, x) -> np.ndarray:
    """Softmax of the net's output on images x, in float64 so that a small one is not rounded to 0; (N, K)."""
    logits = np.asarray(net.ops.to_host(net.forward(x, train=False)), np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
