"""Launches of loss.cu, running_metrics.cu and loss_scale.cu."""

from __future__ import annotations

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.launcher import THREADS, ceil_div


class Loss(Kind):
    """Softmax cross-entropy, what is counted of it, and the scale of the loss."""

    def softmax_forward(self, x, y):
        """y (N, K), the probabilities of each row of x. y may be x."""
        N, K = x.shape
        self._gpu.launch("loss", "softmax_forward", ceil_div(N, 4), (x, y, N, K), block=128)

    def softmax_cross_entropy_forward(self, x, labels, probs, losses, *, label_smoothing=0.0):
        """probs (N, K) and losses (N,) from x (N, K) and labels int32 (N,)."""
        N, K = x.shape
        self._gpu.launch("loss", "softmax_cross_entropy_forward", ceil_div(N, 4),
                         (x, labels, probs, losses, N, K, label_smoothing), block=128)

    def softmax_cross_entropy_backward(self, probs, labels, dx, *, scale, loss_scale=None, label_smoothing=0.0):
        """dx = scale * (probs - target), times the power of two of loss_scale."""
        N, K = probs.shape
        self._gpu.launch("loss", "softmax_cross_entropy_backward", ceil_div(N * K, THREADS),
                         (probs, labels, dx, N, K, scale, loss_scale, label_smoothing / K, 1 - label_smoothing))

    # ---- running_metrics
    def count_losses(self, losses, counts, *, weight):
        """counts[1] += weight * sum of losses (N,)."""
        self._gpu.launch("running_metrics", "count_losses", 1, (losses, counts, len(losses), weight), block=32)

    def count_correct(self, x, labels, counts):
        """counts[0] += N, counts[2] and counts[3] += top-1 and top-5 correct, of x (N, K), labels int32 (N,)."""
        self._gpu.launch("running_metrics", "count_correct", 1, (x, labels, counts, *x.shape), block=1024)

    # ---- loss_scale
    def next_loss_scale(self, state, *, steady, lowest, highest):
        """The state for the next step: one higher after `steady` good ones, one lower after an overflow."""
        self._gpu.launch("loss_scale", "next_loss_scale", 1, (state, steady, lowest, highest), block=1)
