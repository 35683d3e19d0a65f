"""minicnn predict: the classes that a trained network predicts for photographs."""

from __future__ import annotations

import argparse
import os
import sys

from minicnn.data.dataset import ImageError
from minicnn.errors import ConfigError, printable
from minicnn.evaluate.fold import folded
from minicnn.evaluate.predict import predict, read_words
from minicnn.experiment.imported import ASSUMED
from minicnn.experiment.options import add_out, add_quick_device, device_of
from minicnn.experiment.trained import load_trained, quick_device, samples_for
from minicnn.train.runs.run_dir import BEST, find_checkpoint

ABOUT = "Predict the classes of photographs: the five most probable, with their probabilities."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="RUN", help="a run's folder (then its best checkpoint), its name, a "
                        "checkpoint, or pretrained: the network of this package")
    parser.add_argument("files", metavar="FILE", nargs="*", help="photographs (of pretrained by default the drawn "
                        "samples of this package)")
    parser.add_argument("--words", metavar="FILE", help="words.json of a prepared ImageNet: what each wnid means")
    parser.add_argument("--ten-crop", action="store_true", help="average over the paper's ten crops")
    add_quick_device(parser)
    add_out(parser)


def run(options: argparse.Namespace) -> int:
    if folder := next((file for file in options.files if os.path.isdir(file)), None):
        raise ConfigError(f"{folder} is a folder; name its photographs: {os.path.join(folder, '*.jpg')}")
    words, unread = read_words(options.words) if options.words else {}, 0
    checkpoint = find_checkpoint(options.out, options.checkpoint, BEST)
    files = options.files or samples_for(checkpoint)
    if not files:
        raise ConfigError("no photograph is named; name at least one: minicnn predict RUN photo.jpg")
    net, pipeline, meta = load_trained(checkpoint, quick_device(checkpoint, device_of(options, options.device)))
    if meta.get("imported", {}).get("preprocess") == ASSUMED:
        used = f"{pipeline.preprocess.order.upper()} in 0..255 minus {pipeline.preprocess.mean or 0}"
        print(f"{ASSUMED} {used}: import it again with --mean, or expect wrong classes", file=sys.stderr)
    if meta.get("average"):
        print("weights: their moving average over the steps", file=sys.stderr)
    for file, guesses in predict(folded(net), pipeline, meta["classes"], files, ten_crop=options.ten_crop):
        if isinstance(guesses, ImageError):
            print(f"error: {printable(str(guesses))}", file=sys.stderr)
            unread += 1
            continue
        print(printable(file))
        for name, probability in guesses:
            print(f"  {100 * probability:5.1f} %  {name}{' ' * (name in words)}{words.get(name, '')}")
    return 2 if unread else 0
