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
    parser.add_argument("--size", type=int, metavar="S", help="side of the images (default: the network's own); for "
                        "networks of this package")
    add_quick_device(parser)


def run(options: argparse.Namespace) -> int:
    if options.batch < 1:
        raise ConfigError(f"--batch must be at least 1, got {options.batch}")
    if options.size is not None and options.size < 1:
        raise ConfigError(f"--size must be at least 1, got {options.size}")
    resolve(options.model)
    common = {"num_classes": options.classes, "device": device_of(options, options.device)}
    size = {} if options.size is None else {"input_size": options.size}
    if not own_net.is_own(options.model):
        net = registry.build(options.model, **common, **size)
    elif not size:
        net = own_net.build(options.model, **common)
    else:
        raise ConfigError(f"--size {options.size}: the side of the images of {own_net.short(options.model)} is given "
                          "in its file; leave --size out")
    print(net.summary(options.batch))
    return 0
