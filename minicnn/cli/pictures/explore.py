"""minicnn explore: a page on this machine in which one clicks through what a trained network responds to."""

from __future__ import annotations

import argparse

from minicnn.experiment.options import add_out, add_quick_device
from minicnn.explore.serve import explore

ABOUT = "Open a page in the browser in which one clicks through what a trained network responds to."
MORE = """in the page:
  photograph     drop one, or choose a sample: its predictions; move a square over it and see them change
  network        click a layer: its maps for this photograph
  map            click a position: its receptive field, its projection by deconvnet, guided backpropagation and
                 gradient side by side, and the images of the run's set to which the map responds most

Everything stays on this machine: the page is served at 127.0.0.1 only, and loads nothing from outside. It needs the
extra `web`: pip install 'minicnn[web]'"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="RUN", help="a run's folder (then its best checkpoint), its name, a "
                        "checkpoint, or pretrained: the network of this package")
    parser.add_argument("--port", metavar="N", type=int, default=8012, help="of the page; 0: any free one (default: "
                        "8012)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open nothing")
    parser.add_argument("--data", metavar="DIR", help="images for samples and top patches (default: the held-out ones "
                        "of the run)")
    add_quick_device(parser)
    add_out(parser)


def run(options: argparse.Namespace) -> int:
    explore(options)
    return 0
