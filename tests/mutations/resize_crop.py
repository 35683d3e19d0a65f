"""Mistakes in cutting and resizing boxes. There are no gradients; only values are compared."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, fixed, option


def boxes(change) -> dict:
    """The operation on other boxes: change(top, left, height, width)."""
    names = ("top", "left", "height", "width")
    return {"resize_crop_forward": lambda op, ops: lambda images, y, **options: op(
        images, y, **options | dict(zip(names, change(*(options[name] for name in names)), strict=True)))}


def not_antialiased(op, ops):
    """Each output from the pixels next to its centre, as if nothing were shrunk: boxes of its own, as large as y."""
    def call(images, y, *, height, width, top, left, **options):
        H, W = y.shape[1:3]
        op(images, y, height=np.minimum(height, H), width=np.minimum(width, W), top=top + (height - H).clip(0) / 2,
           left=left + (width - W).clip(0) / 2, **options)
    return call


def changed(name: str, change) -> dict:
    return {"resize_crop_forward": option(name, change)}


MUTATIONS = [
    Mutation("resize_crop: half a pixel off", "resize_crop", boxes(lambda t, *box: (t + 0.5, *box)), True),
    Mutation("resize_crop: top and left mixed up", "resize_crop", boxes(lambda t, x, *box: (x, t, *box)), True),
    Mutation("resize_crop: height and width mixed up", "resize_crop", boxes(lambda t, x, h, w: (t, x, w, h)), True),
    Mutation("resize_crop: not antialiased", "resize_crop", {"resize_crop_forward": not_antialiased}, True),
    Mutation("resize_crop: whole pixels only", "resize_crop", boxes(lambda *box: [np.floor(b) for b in box]), True),
    Mutation("resize_crop: the image before", "resize_crop", changed("offsets", lambda a: np.roll(a, 1)), True),
    Mutation("resize_crop: rows and columns of the image mixed up", "resize_crop", {
        "resize_crop_forward": lambda op, ops: lambda images, y, *, heights, widths, **options:
            op(images, y, heights=widths, widths=heights, **options)}, True),
    Mutation("resize_crop: no mirror", "resize_crop", changed("flip", np.zeros_like), True),
    Mutation("resize_crop: mean not subtracted", "resize_crop", changed("mean", np.zeros_like), True),
    Mutation("resize_crop: colours of another", "resize_crop", changed("shift", lambda a: np.roll(a, 1, 0)), True),
    Mutation("resize_crop: reflected instead of zero", "resize_crop_zero", {
        "resize_crop_forward": fixed("border", "reflect")}, True),
    Mutation("resize_crop: zero instead of reflected", "resize_crop_reflect", {
        "resize_crop_forward": fixed("border", "zero")}, True),
    Mutation("resize_crop: mean not resized with the image", "resize_crop_zero", {
        "resize_crop_forward": lambda op, ops: lambda images, y, **options: op(images, y, **options | {
            "mean_of_image": False, "mean": options["mean"][:y.shape[1], :y.shape[2]].copy()})}, True),
    Mutation("cutout: nothing cut out", "cutout", {"cutout_forward": lambda op, ops: lambda y, **options: None}, True),
    Mutation("cutout: not clipped at the edge", "cutout", {"cutout_forward": option("top", lambda t: t.clip(0))}, True),
    Mutation("cutout: rows and columns mixed up", "cutout", {
        "cutout_forward": lambda op, ops: lambda y, *, height, width, **options:
            op(y, height=width, width=height, **options)}, True),
]
