"""What a trained network makes of somebody's photograph: its most probable classes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from minicnn.data.dataset import Dataset, ImageError
from minicnn.data.input import InputPipeline
from minicnn.errors import CheckpointError, ConfigError, DataError
from minicnn.evaluate.evaluate import evaluate
from minicnn.system.files import unsigned

Guesses = list[tuple[str, float]]                  # class and probability, the most probable first


def predict(net, pipeline: InputPipeline, classes: Sequence[str], files: Sequence[str], *, ten_crop: bool = False,
            top: int = 5) -> Iterator[tuple[str, Guesses | ImageError]]:
    """(file, its `top` guesses) for each file in turn; in place of the guesses, why a file cannot be read.

    pipeline: resizes, crops and scales the photographs as those of training were.   classes: what the outputs mean.
    CheckpointError for outputs that are not finite.
    """
    if (side := pipeline.preprocess.size) is None:
        raise ConfigError("the size to which photographs are resized is not known; give Preprocess.size")
    for file in files:
        photograph = Dataset("photograph", classes, [0], [file], pipeline.preprocess.load, size=(side, side))
        photograph.decoding = pipeline.preprocess.resize, pipeline.preprocess.interpolation
        try:
            with np.errstate(over="ignore", invalid="ignore"):          # check_finite names the photograph
                found = evaluate(net, photograph, pipeline, batch=1, ten_crop=ten_crop, progress=False).probabilities[0]
        except ImageError as error:
            yield file, error
        else:
            check_finite(found, "the network's outputs", f" for this photograph, {file}")
            best = np.argsort(-found, kind="stable")[:top]
            yield file, [(classes[k], float(found[k])) for k in best]


def check_finite(values: np.ndarray, what: str, where: str = "") -> None:
    """CheckpointError where a value is NaN or infinite.   what, where: words of the message."""
    if not np.isfinite(values).all():
        raise CheckpointError(f"{what} are not finite (NaN or infinity){where}; its training has diverged, or its "
                              "weights are damaged: use another checkpoint")


def read_words(path: str | os.PathLike) -> dict[str, str]:
    """Class -> words, from a JSON file such as `minicnn prepare` writes for ImageNet."""
    try:
        words = unsigned(json.loads(Path(path).read_text(encoding="utf-8")))
        return {name: str(text) for name, text in words.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as words ({error}); expected JSON of class names and words, such as "
                        "words.json of a prepared ImageNet") from error
