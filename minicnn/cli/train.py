"""minicnn train: a network of minicnn.models or of one's own, on a folder of photographs."""

from __future__ import annotations

import argparse

from minicnn.experiment import own_net
from minicnn.experiment.options import add_options
from minicnn.experiment.run import train_run

ABOUT = "Train a network on photographs; a run folder keeps checkpoints, metrics and pictures."
MORE = """examples:
  minicnn train alexnet                                 the packaged photographs of solar cells, six epochs
  minicnn train alexnet:caffe --data DIR                a variant, on a folder with one folder per class
  minicnn train my_net.py:build --data DIR --lr 0.01    a network of your own: build() returns a Net, and may have
                                                        parameters num_classes, device, seed, dtype
  minicnn train --resume RUN                            go on where that run was stopped, bit for bit
Ctrl-C saves and ends."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="alexnet, alexnet:caffe, ... (minicnn models lists "
                        "them), or FILE.py:FUNCTION; may be left out with --resume")
    add_options(parser, "which variant of the model, as in MODEL:NAME (default: the paper's)",
                "a recipe of the model, as minicnn models MODEL lists them")


def run(options: argparse.Namespace) -> int:
    model = options.model
    words = [own_net.short(model) if own_net.is_own(model) else model.partition(":")[0]] if model else []
    options.program = ["minicnn", "train", *words]
    return train_run(options)
