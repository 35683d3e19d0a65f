"""Mistakes in cropping, mirrors and colours. There are no gradients; only values are compared."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, option

MUTATIONS = [
    Mutation("augment: mean not subtracted", "augment", {"augment_forward": option("mean", np.zeros_like)}, True),
    Mutation("augment: mean not cropped with the image", "augment", {
        "augment_forward": option("mean", lambda mean: np.ascontiguousarray(np.roll(mean, 1, axis=1)))}, True),
    Mutation("augment: top and left mixed up", "augment", {
        "augment_forward": lambda op, ops: lambda images, y, *, top, left, **options:
            op(images, y, top=left, left=top, **options)}, True),
    Mutation("augment: no mirror", "augment", {"augment_forward": option("flip", np.zeros_like)}, True),
    Mutation("augment: no colour shift", "augment", {"augment_forward": option("shift", np.zeros_like)}, True),
    Mutation("augment: colours of the neighbour", "augment", {
        "augment_forward": option("shift", lambda shift: np.roll(shift, 1, axis=0))}, True),
]
