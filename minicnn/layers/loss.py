"""Multinomial logistic regression (paper section 3.5): softmax and cross-entropy in one step.

    p_i = exp(x_i) / sum_j exp(x_j)        loss of one image = -log p_label        dx = weight / N * (p - onehot(label))

With label smoothing e the target (1 - e) onehot(label) + e/K replaces onehot(label); derived in
kernels/reference/loss.py. The second input holds the labels (int32, one per image), which have no gradient. Saved: p.
"""

from __future__ import annotations

from minicnn.errors import ConfigError, ShapeError
from minicnn.layers.base import Layer, LayerPlan
from minicnn.shapes import finite


class SoftmaxCrossEntropy(Layer):
    """(N, classes) and labels (N,) -> one loss per image.

    The loss of the network is the sum of weight * mean over its loss nodes.
    `train_only` marks an auxiliary loss: at test time, it and the layers that only it needs do not run (GoogLeNet's
    auxiliary classifiers).
    label_smoothing: the share of the target that is spread evenly over all classes, at least 0 and less than 1. It is
    for training only: a validation loss is the cross-entropy with the label, so that it can be compared between nets
    trained with and without.
    """

    is_loss = True
    capturable = True

    def __init__(self, weight: float = 1.0, *, train_only: bool = False, label_smoothing: float = 0.0):
        super().__init__()
        if not 0 <= finite(label_smoothing, "SoftmaxCrossEntropy: label_smoothing") < 1:
            raise ConfigError(f"SoftmaxCrossEntropy: label_smoothing = {label_smoothing} must be at least 0 and less "
                              "than 1")
        self.weight = finite(weight, "SoftmaxCrossEntropy: weight")
        self.train_only, self.label_smoothing = train_only, label_smoothing

    def plan(self, in_shapes, dtype, ops):
        shape, labels = in_shapes
        if len(shape) != 2 or tuple(labels) != (shape[0],):
            hint = "; flatten the maps, or average them with GlobalAvgPool2d, first" if len(shape) > 2 else ""
            raise ShapeError(f"SoftmaxCrossEntropy expects logits (N, classes) and labels (N,), got {tuple(shape)} and "
                             f"{tuple(labels)}{hint}")
        return LayerPlan((shape[0],), saves=("xs",), buffers={"probs": (tuple(shape), dtype)})

    def smoothing(self, ctx) -> float:
        """The label smoothing of this call."""
        return self.label_smoothing if ctx.train else 0.0

    def forward(self, ctx, xs, y, saved):
        logits, labels = xs
        ctx.ops.softmax_cross_entropy_forward(logits, labels, saved["probs"], y, label_smoothing=self.smoothing(ctx))

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            probs, labels = saved["probs"], saved["xs"][1]
            ctx.ops.softmax_cross_entropy_backward(probs, labels, dxs[0], scale=self.weight / probs.shape[0],
                                                   loss_scale=ctx.loss_scale, label_smoothing=self.smoothing(ctx))

    def describe(self):
        smoothing = f", label smoothing {self.label_smoothing:g}" if self.label_smoothing else ""
        return f"weight {self.weight:g}" + smoothing + (", training only" if self.train_only else "")
