"""minicnn report: one HTML file about a training run."""

from __future__ import annotations

import argparse

from minicnn.experiment.options import add_quick_device
from minicnn.report.build import NAME, report

ABOUT = "Write one HTML file about a training run, which opens in any browser, without a network."
MORE = """what it shows:
  what was trained, and how that differs from the paper; loss, accuracy and learning rate
  the first layer over time; predictions, confusion matrix and worst classes
  what units respond to: deconvnet, occlusion, the strongest images of some maps
  the memory plan, what ranks exchanged, and the timeline of a training step

Sections whose images are gone say so. It takes about a minute on two cores; a larger network is shown fewer images.
Needs: pip install 'minicnn[report]'"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("which", metavar="RUN", help="a run's folder (then its best checkpoint), its name, a "
                        "checkpoint, or pretrained: the network of this package")
    parser.add_argument("--out", metavar="FILE", help=f"the file to write (default: {NAME} in the folder of the run)")
    parser.add_argument("--language", metavar="CODE", default="en", help="of the texts: en (default) or ko")
    parser.add_argument("--data", metavar="DIR", help="other images of the same classes (default: those of the run)")
    parser.add_argument("--images", metavar="N", type=int, help="predict so many held-out images (default: by the size "
                        "of the network, at most 2,000)")
    add_quick_device(parser)
    parser.add_argument("--runs", metavar="DIR", default="runs", help="folder of all runs (default: runs)")


def run(options: argparse.Namespace) -> int:
    print(report(options))
    return 0
