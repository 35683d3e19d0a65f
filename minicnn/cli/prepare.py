"""minicnn prepare: photographs decoded once, into shards for training."""

from __future__ import annotations

import argparse
import shlex
import sys

from minicnn.data.prepare.run import prepare
from minicnn.system.terminal import lasting

ABOUT = "Decode photographs once, short side to 256 and central square, into shards for training."
MORE = """SOURCE is ILSVRC2012_img_train.tar or the folder with it, ILSVRC2012_img_val.tar and the devkit;
train/CLASS/* and val/CLASS/* (or a flat val/ with a list of labels); CLASS/*; a tar of any of these; or
WebDataset shards. Stopped at any moment, the same command goes on. Takes 197 kB an image: 262 GB for
ImageNet; --jpeg takes about a seventh. Recipes that vary scale or aspect (VGG, GoogLeNet, ResNet) want whole
images, with more pixels: --short-side 512 --keep-aspect takes about 1.1 MB an image, 160 kB with --jpeg."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a folder or a tar")
    parser.add_argument("out", metavar="OUT", help="a new folder")
    parser.add_argument("--size", "--short-side", dest="size", type=int, default=256, metavar="N",
                        help="side of the images, the short one with --keep-aspect (default: 256)")
    parser.add_argument("--keep-aspect", action="store_true", help="keep whole images, and not their central squares")
    parser.add_argument("--jpeg", action="store_true", help="keep JPEGs of the images, to be decoded again in training")
    parser.add_argument("--strict", action="store_true", help="fail if an image cannot be read, a class is empty, or "
                        "the counts are not those of ILSVRC2012")
    parser.add_argument("--workers", type=int, metavar="N", help="decoding threads (default: all processors)")
    parser.add_argument("--labels", metavar="PATH", help="the devkit, or the list of classes of a flat val/")
    parser.add_argument("--per-shard", type=int, default=2048, metavar="N", help="images in a shard (default: 2048)")


def run(options: argparse.Namespace) -> int:
    with lasting():
        return _prepare(options)


def _prepare(options: argparse.Namespace) -> int:
    try:
        prepare(options.source, options.out, size=options.size, keep_aspect=options.keep_aspect, jpeg=options.jpeg,
                strict=options.strict, workers=options.workers, per_shard=options.per_shard, labels=options.labels,
                say=lambda label, text: print(f"{label:13s}{text}", flush=True))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(f"to train:    {shlex.join(['minicnn', 'train', 'alexnet', '--data', options.out])}")
    return 0
