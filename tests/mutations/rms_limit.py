"""Mistakes in limiting the RMS of filters. There are no gradients; only values are compared."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, fixed, instead


def scaled(factors) -> dict:
    """The operation that multiplies each filter by factors(w, limit), except after an overflow."""
    def rms_limit_step(w, *, limit, loss_scale=None):
        if loss_scale is None or not loss_scale[2]:
            w *= factors(w, limit)
    return {"rms_limit_step": instead(rms_limit_step)}


def rms(w, axis=(0, 1, 2)):
    return np.sqrt(np.mean(w**2, axis=axis, keepdims=True))


MUTATIONS = [
    Mutation("rms_limit: no filter is limited", "rms_limit", scaled(lambda w, limit: 1.0), True),
    Mutation("rms_limit: every filter is scaled to it", "rms_limit", scaled(lambda w, limit: limit / rms(w)), True),
    Mutation("rms_limit: the norm instead of the RMS", "rms_limit", scaled(
        lambda w, limit: np.minimum(1, limit / (rms(w) * np.sqrt(w[..., 0].size)))), True),
    Mutation("rms_limit: of the layer, not of the filter", "rms_limit", scaled(
        lambda w, limit: np.minimum(1, limit / rms(w, None))), True),
    Mutation("rms_limit: of input channels, not of filters", "rms_limit", scaled(
        lambda w, limit: np.minimum(1, limit / rms(w, (0, 1, 3)))), True),
    Mutation("rms_limit: also after an overflow", "rms_limit", {"rms_limit_step": fixed("loss_scale", None)}, True),
]
