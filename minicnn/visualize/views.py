"""What a network takes of photographs, beside the pixels that a picture shows of it: the central crop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.images import decode
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Batch, Loader


def photographs(pipeline: InputPipeline, files: Sequence[str]) -> Dataset:
    """Files as a set without classes, to be resized as the network's preprocessing says."""
    return _without_classes(pipeline, files, pipeline.preprocess.load)


def in_memory(pipeline: InputPipeline, data: bytes, name: str) -> Dataset:
    """The same of the bytes of one file; `name` is for messages."""
    how = pipeline.preprocess
    return _without_classes(pipeline, [data], lambda data: decode(data, how.size, name, resize=how.resize,
                                                                  interpolation=how.interpolation))


def _without_classes(pipeline: InputPipeline, items: Sequence, load: Callable) -> Dataset:
    preprocess, name = pipeline.preprocess, f"{len(items)} photographs"
    dataset = Dataset(name, ["photograph"], np.zeros(len(items), int), items, load,
                      size=(preprocess.size, preprocess.size))
    dataset.decoding = preprocess.resize, preprocess.interpolation
    return dataset


def views(pipeline: InputPipeline, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The central crops of all images of a set, which are few: uint8 (N, crop, crop, 3) in RGB, and the same as the
    network takes them, both on the host. ImageError for one that cannot be read."""
    (batch,) = Loader(dataset, len(dataset)).epoch(0)
    plain = InputPipeline(pipeline.net, replace(pipeline.preprocess, order="rgb", range=255, mean=None, std=None))
    pixels = np.rint(plain.ops.to_host(plain.evaluation(batch))).clip(0, 255).astype(np.uint8)
    return pixels, np.array(pipeline.ops.to_host(pipeline.evaluation(batch)))         # a copy: it is overwritten


def grey_input(pipeline: InputPipeline, grey: int) -> np.ndarray:
    """What the network takes of an image of this grey, 0..255: (crop, crop, 3)."""
    side = pipeline.preprocess.size
    batch = Batch(np.full((1, side, side, 3), grey, np.uint8), labels=None, sample_ids=None, indices=None)
    return np.array(pipeline.ops.to_host(pipeline.evaluation(batch)))[0]


def mean_words(pipeline: InputPipeline) -> str:
    """What 0 in the network's input is, for a caption."""
    return "the mean that preprocessing subtracts" if pipeline.preprocess.mean else "0 in the network's input"


def in_pixels(pipeline: InputPipeline, x: np.ndarray) -> np.ndarray:
    """What arrived at the network's input (..., 3) with its channels as RGB."""
    return x[..., ::-1] if pipeline.preprocess.order == "bgr" else x
