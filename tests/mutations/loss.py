"""Mistakes in softmax and cross-entropy."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, afterwards, arguments, instead, option


def without_onehot(probs, labels, dx, *, scale, loss_scale=None, label_smoothing=0.0):
    dx[...] = scale * probs


def log_of_rounded(x, labels, probs, losses, **options):
    losses[...] = -np.log(np.maximum(probs[np.arange(len(x)), labels], 1e-12))


def probabilities_over_the_batch(x, y):
    y[...] = np.exp(x - x.max()) / np.exp(x - x.max()).sum(axis=0)


def smoothed(change):
    """The gradient of another target: change(its smoothing, number of classes, one-hot) is added to the correct one."""
    def wrong(probs, labels, dx, *, scale, label_smoothing, **options):
        onehot = np.eye(dx.shape[1])[labels]
        dx -= scale * change(label_smoothing, dx.shape[1], onehot)
    return afterwards(wrong)


def mean_loss_of(change):
    """Another smoothed loss: change(x, its smoothing) is added to the correct one."""
    def wrong(x, labels, probs, losses, *, label_smoothing):
        losses += change(x - x[np.arange(len(x)), labels][:, None], label_smoothing)
    return afterwards(wrong)


NO_SMOOTHING = option("label_smoothing", lambda smoothing: 0.0)
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
            lambda x, labels, probs, losses, **options: np.copyto(losses, -x[np.arange(len(x)), labels]))}),
    Mutation("loss: logarithm of a rounded probability", "loss_large", {
        "softmax_cross_entropy_forward": afterwards(log_of_rounded)}),
    Mutation("softmax: over the batch", "softmax", {"softmax_forward": instead(probabilities_over_the_batch)}, True),
    Mutation("loss: no smoothing in forward", "loss_smoothed", {"softmax_cross_entropy_forward": NO_SMOOTHING}),
    Mutation("loss: no smoothing in backward", "loss_smoothed", {"softmax_cross_entropy_backward": NO_SMOOTHING}),
    Mutation("loss: no smoothing", "loss_smoothed", {
        "softmax_cross_entropy_forward": NO_SMOOTHING, "softmax_cross_entropy_backward": NO_SMOOTHING}, True),
    Mutation("loss: smoothing with the wrong sign", "loss_smoothed", {
        "softmax_cross_entropy_forward": mean_loss_of(lambda apart, e: 2 * e * apart.mean(axis=1))}),
    Mutation("loss: sum in place of the mean over classes", "loss_smoothed", {
        "softmax_cross_entropy_forward": mean_loss_of(lambda apart, e: -e * (apart.sum(axis=1) - apart.mean(axis=1)))}),
    Mutation("loss: smoothing over the other classes only", "loss_smoothed", {
        "softmax_cross_entropy_forward": mean_loss_of(
            lambda apart, e: e * (apart.mean(axis=1) - apart.sum(axis=1) / (apart.shape[1] - 1))),
        "softmax_cross_entropy_backward": smoothed(
            lambda e, K, onehot: e / (K - 1) * (1 - onehot) - e / K)}, True),
    Mutation("loss: smoothing divided by K - 1", "loss_smoothed", {
        "softmax_cross_entropy_backward": smoothed(lambda e, K, onehot: e / (K - 1) - e / K)}),
    Mutation("loss: the label keeps all of its target", "loss_smoothed", {
        "softmax_cross_entropy_backward": smoothed(lambda e, K, onehot: e * onehot)}),
    Mutation("loss: the smoothing is not added for the label", "loss_smoothed", {
        "softmax_cross_entropy_backward": smoothed(lambda e, K, onehot: -e / K * onehot)}),
]
