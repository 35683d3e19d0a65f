"""minicnn evaluate: the accuracy of trained networks on the test images."""

from __future__ import annotations

import argparse

from minicnn.evaluate.protocols import PROTOCOLS
from minicnn.experiment.evaluation import evaluate_runs
from minicnn.experiment.options import add_device, add_out

ABOUT = "Evaluate trained networks on their test images, by one crop and by ten; of several, also their average."
MORE = "protocols:\n" + "\n".join(f"  {name:15s}{protocol.about}" for name, protocol in PROTOCOLS.items()) + """
Sizes are those of an image's short side, for nets that take 224 x 224; others get them in proportion."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder (then its best checkpoint), its name, "
                        "a checkpoint, or pretrained: the network of this package (with --data)")
    parser.add_argument("--data", metavar="DIR", help="other images of the same classes; of a folder without a split "
                        "all (default: the test images of the run)")
    parser.add_argument("--protocol", metavar="NAME", action="append", help="how: one of those below, or several times "
                        "(default: crop and ten-crop)")
    parser.add_argument("--scales", metavar="N,...", help="resize the short side to these, in place of the protocol's")
    parser.add_argument("--batch", metavar="N", type=int, help="images in a batch (default: as in training)")
    add_device(parser)
    add_out(parser)


def run(options: argparse.Namespace) -> int:
    return evaluate_runs(options, options.runs)
