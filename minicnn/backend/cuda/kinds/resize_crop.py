"""Launches of resize_crop.cu."""

from __future__ import annotations

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.launcher import THREADS, ceil_div

BORDERS = {"inside": 0, "zero": 1, "reflect": 2}


class ResizeCrop(Kind):
    """Boxes of photographs of any sizes, resized, mirrored and normalised."""

    def resize_crop_forward(self, images, y, *, offsets, heights, widths, mean, top, left, height, width, flip, shift,
                            border="inside", mean_of_image=False):
        """y (N, H, W, C) from uint8 images (bytes,) of any sizes; see kernels/reference/resize_crop.py."""
        N, H, W, C = y.shape
        self._gpu.launch("resize_crop", "resize_crop_forward", (N * H, ceil_div(W * C, THREADS)),
                         (images, y, offsets, heights, widths, mean, top, left, height, width, flip, shift, C, H, W,
                          BORDERS[border], int(mean_of_image)))

    def cutout_forward(self, y, *, top, left, height, width):
        """y (N, H, W, C) = 0 in a rectangle of each image; of it what is inside."""
        N, H, W, C = y.shape
        self._gpu.launch("resize_crop", "cutout_forward", (N * H, ceil_div(W * C, THREADS)),
                         (y, top, left, height, width, C, H, W))
