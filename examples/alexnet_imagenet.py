"""Trains the AlexNet of the paper, all 61 million parameters of it, and shows what it has learned.

With no arguments it trains on 1,670 photographs of solar cells (package elpv-dataset) for six epochs, which takes
two minutes on two cores. `--data DIR` takes ImageNet, or any tree with one folder per class. A folder under
runs/ then holds checkpoints, metrics, the curves, conv1's kernels as in Figure 3 of the paper, and a sheet of held-out
photographs with predictions as in Figure 4. `--parallel columns` splits the network in two as the paper does, on two
threads, or on the processes that `mpiexec -n 2` starts.

The validation images choose the learning rate and the best checkpoint; the test images are used once, at the very end.

What happens is in minicnn/experiment/run.py, and the same for every network: `minicnn train alexnet` is this program.
"""

from __future__ import annotations

import argparse
import sys

from minicnn.experiment.evaluation import evaluate_runs
from minicnn.experiment.options import Parser, add_options
from minicnn.experiment.run import train_run
from minicnn.experiment.say import exit_code
from minicnn.models import MODELS

VARIANTS = MODELS["alexnet"].variants


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    about = (__doc__ or "").rpartition("\n\nThe val")[0]         # python -OO leaves no docstring
    parser = Parser(description=about, usage="%(prog)s [options]",
                    epilog="Ctrl-C saves and ends; --resume goes on, bit for bit.")
    parser.set_defaults(model="alexnet", program=["python", "examples/alexnet_imagenet.py"])
    add_options(parser, f"which AlexNet: {', '.join(VARIANTS)} (default: paper)",
                "quick (6 epochs) and long (26 epochs), both initialised to fit the images, or that of a variant's "
                "source, such as paper (section 5)")
    parser.add_argument("--evaluate", metavar="RUN", nargs="+", help="only evaluate a run folder or checkpoint, by one "
                        "crop and by ten; of several, also the average of their predictions")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.evaluate:
        return exit_code(lambda: evaluate_runs(options, options.evaluate))
    return exit_code(lambda: train_run(options))


if __name__ == "__main__":
    sys.exit(main())
