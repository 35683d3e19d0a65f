"""Mistakes in softmax and cross-entropy."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, afterwards, arguments, instead, option


def without_onehot(probs, labels, dx, *, scale, loss_scale=None):
    dx[...] = scale * probs


def log_of_rounded(x, labels, probs, losses):
    losses[...] = -np.log(np.maximum(probs[np.arange(len(x)), labels], 1e-12))


def probabilities_over_the_batch(x, y):
    y[...] = np.exp(x - x.max()) / np.exp(x - x.max()).sum(axis=0)


MUTATIONS = [
    Mutation("loss: gradient without the one-hot", "loss", {"softmax_cross_entropy_backward": instead(without_onehot)}),
    Mutation("loss: gradient not divided by the batch", "loss", {
        "softmax_cross_entropy_backward":
            lambda op, ops: lambda probs, labels, dx, *, scale, **options: op(probs, labels, dx,
                                                                              scale=scale * len(probs), **options)}),
    Mutation("loss: weight forgotten in the gradient", "loss", {
        "softmax_cross_entropy_backward":
            lambda op, ops: lambda probs, labels, dx, *, scale, **options: op(probs, labels, dx,
                                                                              scale=1 / len(probs), **options)}),
    Mutation("loss: gradient not scaled", "scaled_step", {
        "softmax_cross_entropy_backward": option("loss_scale", lambda state: None)}, True),
    Mutation("loss: sign of the gradient", "loss", {
        "softmax_cross_entropy_backward": option("scale", lambda scale: -scale)}),
    Mutation("loss: labels of the neighbours", "loss", {
        "softmax_cross_entropy_backward": arguments(lambda probs, labels, dx: (probs, np.roll(labels, 1), dx))}),
    Mutation("loss: without the normaliser", "loss", {
        "softmax_cross_entropy_forward": afterwards(
            lambda x, labels, probs, losses: np.copyto(losses, -x[np.arange(len(x)), labels]))}),
    Mutation("loss: logarithm of a rounded probability", "loss_large", {
        "softmax_cross_entropy_forward": afterwards(log_of_rounded)}),
    Mutation("softmax: over the batch", "softmax", {"softmax_forward": instead(probabilities_over_the_batch)}, True),
]
