"""minicnn summary: the table of a network."""

from __future__ import annotations

import argparse

from minicnn.errors import ConfigError
from minicnn.experiment import own_net
from minicnn.experiment.nets import resolve
from minicnn.experiment.options import add_quick_device, device_of
from minicnn.models import registry

ABOUT = "Print the layers of a network: shapes, parameters, multiply-adds, bytes."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", default="alexnet", help="alexnet (default), "
                        "alexnet:caffe, ... (minicnn models lists them), or FILE.py:FUNCTION")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="images in a batch (default: 128)")
    parser.add_argument("--classes", type=int, metavar="K", help="classes (default: the network's own number)")
    add_quick_device(parser)


def run(options: argparse.Namespace) -> int:
    if options.batch < 1:
        raise ConfigError(f"--batch must be at least 1, got {options.batch}")
    resolve(options.model)
    build = own_net.build if own_net.is_own(options.model) else registry.build
    net = build(options.model, num_classes=options.classes, device=device_of(options, options.device))
    print(net.summary(options.batch))
    return 0
