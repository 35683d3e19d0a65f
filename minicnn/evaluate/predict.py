"""What a trained net makes of somebody's photograph: its most probable classes, from a checkpoint and a file alone.

A checkpoint says which net it is of, what its classes are called, and which mean image is taken off: the photograph is
brought to that image's size as those of training were, cropped in the centre or ten times, and shown to the net.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from minicnn import models
from minicnn.data.dataset import Dataset, ImageError
from minicnn.data.images import load
from minicnn.errors import CheckpointError, DataError
from minicnn.evaluate.evaluate import evaluate
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.run_dir import restore

Guesses = list[tuple[str, float]]                  # class and probability, the most probable first


def predict(checkpoint: str | os.PathLike, files: Sequence[str], *, device: str = "auto", ten_crop: bool = False,
            top: int = 5) -> Iterator[tuple[str, Guesses | ImageError]]:
    """(file, its `top` guesses) for each file in turn; in place of the guesses, why a file cannot be read."""
    meta = load_checkpoint(checkpoint, parts=()).meta
    net = net_of(meta, checkpoint, device)
    feed, _ = restore(net, checkpoint, meta["classes"])
    size = feed.mean.shape[0]
    for file in files:
        photograph = Dataset("photograph", meta["classes"], [0], [file], lambda path: load(path, size),
                             size=(size, size))
        try:
            shares = evaluate(net, photograph, feed, batch=1, ten_crop=ten_crop, progress=False).probabilities[0]
        except ImageError as error:
            yield file, error
        else:
            best = np.argsort(-shares, kind="stable")[:top]
            yield file, [(meta["classes"][k], float(shares[k])) for k in best]


def read_words(path: str | os.PathLike) -> dict[str, str]:
    """Class -> words, from a JSON file such as `minicnn prepare` writes for ImageNet."""
    try:
        words = json.loads(Path(path).read_text(encoding="utf-8"))
        return {name: str(text) for name, text in words.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as words ({error}); expected JSON of class names and words, such as "
                        "words.json of a prepared ImageNet") from error


def net_of(meta: dict, checkpoint: str | os.PathLike, device: str):
    """The net, as it is built before training, that a checkpoint's recipe names."""
    about = dict(meta["recipe"]["net"])
    build = getattr(models, about.pop("model", ""), None)
    if build is None:
        raise CheckpointError(f"{checkpoint}: is of the net {meta['recipe']['net']}, which minicnn.models does not "
                              "have; expected the checkpoint of a run of one of its models")
    return build(device=device, **about)
