"""Mistakes in dropout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.mutations.mutate import Mutation, option


def both_dropouts(change: Callable) -> dict[str, Callable]:
    return {"dropout_forward": change, "dropout_backward": change}


def mask_upside_down(op, ops):
    """Kept where u < rate."""
    def call(x, y, *, rate, scale, **draw):
        kept = np.empty_like(y)
        op(x, kept, rate=rate, scale=1.0, **draw)
        np.multiply(x - kept, scale, out=y)
    return call


MUTATIONS = [
    Mutation("dropout: scale forgotten in forward", "dropout_inverted", {
        "dropout_forward": option("scale", lambda s: 1.0)}),
    Mutation("dropout: scale forgotten", "dropout_inverted", both_dropouts(option("scale", lambda s: 1.0)), True),
    Mutation("dropout: a fresh mask in backward", "dropout", {
        "dropout_backward": option("epoch", lambda epoch: epoch + 1)}),
    Mutation("dropout: no mask in backward", "dropout", {"dropout_backward": option("rate", lambda rate: 0.0)}),
    Mutation("dropout: the same mask in every epoch", "dropout", both_dropouts(option("epoch", lambda epoch: 0)), True),
    Mutation("dropout: the same mask in every layer", "dropout", both_dropouts(
        option("purpose", lambda purpose: 0)), True),
    Mutation("dropout: seed ignored", "dropout", both_dropouts(option("seed", lambda seed: 0)), True),
    Mutation("dropout: mask by row of the batch", "dropout", both_dropouts(
        option("sample_ids", lambda ids: np.arange(len(ids), dtype=np.uint32))), True),
    Mutation("dropout: one mask for the whole batch", "dropout", both_dropouts(
        option("sample_ids", lambda ids: np.zeros_like(ids))), True),
    Mutation("dropout: what should stay is dropped", "dropout", both_dropouts(mask_upside_down), True),
    Mutation("dropout: not scaled at test time", "dropout_test", {
        "scale_forward": option("factor", lambda factor: 1.0)}, True),
    Mutation("dropout: scaled the wrong way at test time", "dropout_test", {
        "scale_forward": option("factor", lambda factor: 1 / factor)}, True),
]
