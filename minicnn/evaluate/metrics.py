"""Loss and accuracy over images: `RunningMetrics` sums them up, `top_k_correct` counts correct predictions."""

from __future__ import annotations

import numpy as np


def top_k_correct(scores: np.ndarray, labels: np.ndarray, k: int) -> int:
    """How many labels are among the k highest scores of their row; scores (N, K). The lower index wins a tie."""
    own = scores[np.arange(len(labels)), labels][:, None]                                     # (N, 1)
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]                           # (N, K)
    rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)                         # (N,)
    return int((rank < k).sum())


def majority(labels: np.ndarray) -> float:
    """Share of the most frequent label: the accuracy of always predicting it."""
    return float(np.bincount(labels).max() / len(labels))


class RunningMetrics:
    """Sums over images: the loss, and how often the label was the top-1 prediction, or among the top 5."""

    def __init__(self, images: int = 0, loss: float = 0.0, top1: int = 0, top5: int = 0):
        self.images, self.loss, self.top1, self.top5 = images, loss, top1, top5

    def add(self, loss: float, scores: np.ndarray, labels: np.ndarray) -> None:
        """loss: mean over these images; scores: logits or probabilities (N, K); labels (N,)."""
        self.images += len(labels)
        self.loss += float(loss) * len(labels)
        self.top1 += top_k_correct(scores, labels, 1)
        self.top5 += top_k_correct(scores, labels, 5)

    def result(self) -> dict[str, float]:
        """{"loss", "top1", "top5"}: means over the images counted so far."""
        images = max(self.images, 1)
        return {"loss": self.loss / images, "top1": self.top1 / images, "top5": self.top5 / images}

    def since(self, state: dict[str, float]) -> RunningMetrics:
        """What was added since this earlier `state`."""
        return RunningMetrics(**{name: now - state[name] for name, now in self.state().items()})

    def state(self) -> dict[str, float]:
        return {"images": self.images, "loss": self.loss, "top1": self.top1, "top5": self.top5}
