"""What a network takes of photographs, beside the pixels that a picture shows of it: the central crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minicnn.data.augment import offsets
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Batch


def crops_of(images: np.ndarray, crop: int) -> np.ndarray:
    """The central squares (N, crop, crop, 3) of images (N, A, B, 3)."""
    top, left = (offset // 2 for offset in offsets(crop, images.shape[1:3]))
    return images[:, top:top + crop, left:left + crop]


def network_inputs(pipeline: InputPipeline, images: np.ndarray) -> np.ndarray:
    """Those crops, preprocessed as for evaluation: (N, crop, crop, 3), on the host."""
    batch = Batch(np.ascontiguousarray(images), labels=None, sample_ids=None, indices=None)
    return np.array(pipeline.ops.to_host(pipeline.evaluation(batch)))                 # a copy: it is overwritten


def read(pipeline: InputPipeline, files: Sequence[str]) -> np.ndarray:
    """Photographs, resized as the network's preprocessing says: uint8 (N, size, size, 3). ImageError."""
    return np.stack([pipeline.preprocess.load(file) for file in files])


def in_pixels(pipeline: InputPipeline, x: np.ndarray) -> np.ndarray:
    """What arrived at the network's input (..., 3) with its channels as RGB."""
    return x[..., ::-1] if pipeline.preprocess.order == "bgr" else x
