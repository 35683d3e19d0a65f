"""Multinomial logistic regression (paper section 3.5): softmax and cross-entropy in one step.

    p_i = exp(x_i) / sum_j exp(x_j)        loss of one image = -log p_label        dx = weight / N * (p - onehot(label))

The second input holds the labels (int32, one per image), which have no gradient. Saved: p.
"""

from __future__ import annotations

from minicnn.errors import ShapeError
from minicnn.layers.base import Layer, LayerPlan


class SoftmaxCrossEntropy(Layer):
    """(N, classes) and labels (N,) -> one loss per image.

    The loss of the network is the sum of weight * mean over its loss nodes.
    `train_only` marks an auxiliary loss: at test time, it and the layers that only it needs do not run (GoogLeNet's
    auxiliary classifiers).
    """

    is_loss = True
    capturable = True

    def __init__(self, weight: float = 1.0, *, train_only: bool = False):
        super().__init__()
        self.weight, self.train_only = weight, train_only

    def plan(self, in_shapes, dtype, ops):
        shape, labels = in_shapes
        if len(shape) != 2 or tuple(labels) != (shape[0],):
            raise ShapeError(f"SoftmaxCrossEntropy expects logits (N, classes) and labels (N,), got {tuple(shape)} and "
                             f"{tuple(labels)}")
        return LayerPlan((shape[0],), saves=("xs",), buffers={"probs": (tuple(shape), dtype)})

    def forward(self, ctx, xs, y, saved):
        logits, labels = xs
        ctx.ops.softmax_cross_entropy_forward(logits, labels, saved["probs"], y)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            probs, labels = saved["probs"], saved["xs"][1]
            scale = self.weight / probs.shape[0]
            ctx.ops.softmax_cross_entropy_backward(probs, labels, dxs[0], scale=scale,
                                                   loss_scale=ctx.loss_scale)

    def describe(self):
        return f"weight {self.weight:g}" + (", training only" if self.train_only else "")
