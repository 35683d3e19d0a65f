"""minicnn draw: a network as a picture."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from minicnn import pretrained
from minicnn.errors import ConfigError
from minicnn.experiment import own_net
from minicnn.experiment.nets import resolve, title
from minicnn.experiment.settings import about_of
from minicnn.experiment.trained import load_trained
from minicnn.graph import Net
from minicnn.models import registry
from minicnn.train.runs.run_dir import BEST, find_checkpoint, folder_for
from minicnn.visualize.diagram.draw import draw_net

ABOUT = "Draw a network as SVG or PNG: boxes to scale, branches, parameters and multiply-adds of each layer."
RUNS = "runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL|RUN", help="alexnet, alexnet:caffe, ... (minicnn models lists them), "
                        "FILE.py:FUNCTION, or a run's folder, its name, a checkpoint, or pretrained: the network of "
                        "this package")
    parser.add_argument("--out", metavar="FILE", help="FILE.svg or FILE.png (default: MODEL.svg, or for a run net.svg "
                        "in its folder)")
    parser.add_argument("--classes", type=int, metavar="K", help="classes (default: the network's own number)")


def run(options: argparse.Namespace) -> int:
    net, heading, default = net_called(options.model, options.classes)
    print(draw_net(net, Path(options.out or default), heading))
    return 0


def net_called(name: str, classes: int | None = None) -> tuple[Net, str, Path]:
    """The network of a run or a model, its name in prose, and where its picture is put unless asked otherwise."""
    places = (Path(folder, name) for folder in (".", RUNS))
    if name == pretrained.WORD or ".py" not in name and (os.sep in name or any(path.exists() for path in places)):
        if classes is not None:
            raise ConfigError(f"--classes is for models, and {name} is a run with the classes it was trained on; leave "
                              "it out")
        checkpoint = find_checkpoint(RUNS, name, BEST)
        net, _, meta = load_trained(checkpoint, "reference")
        about = about_of(meta)
        return net, title(about) if about["model"] else net.name, folder_for(checkpoint) / "net.svg"
    model, variant = resolve(name)
    own = own_net.is_own(model)
    net = (own_net.build if own else registry.build)(
        registry.full_name(model, variant), num_classes=classes, device="reference", values=Undrawn())
    return net, title({"model": model, "variant": variant}), Path(net.name + ".svg")


class Undrawn(dict):
    """Values of a network whose weights do not matter: zeros, which take neither time nor memory."""

    def get(self, name, default=None):
        return lambda seed, name, shape, dtype: np.zeros(shape, dtype)
