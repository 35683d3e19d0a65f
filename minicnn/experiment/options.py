"""The command line of a training run, as `minicnn train` and examples/alexnet_imagenet.py have it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from minicnn.errors import ConfigError, nearest
from minicnn.experiment.augmentation import LISTED
from minicnn.parallel.comm import TIMEOUT
from minicnn.train.recipe import OPTIMISERS
from minicnn.train.schedule import SCHEDULES


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one line."""

    def __init__(self, **options):
        options.setdefault("formatter_class", lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=118))
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        self.exit(2, f"error: {with_nearest(self, message)}; see {self.prog} --help\n")


def with_nearest(parser: argparse.ArgumentParser, message: str) -> str:
    """A message about an unknown option, with the parser's nearest one."""
    unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
    near = nearest(unknown[1], re.findall(r"--[\w-]+", parser.format_help())) if unknown else None
    return f"{message}; did you mean {near}?" if near else message


def add_options(parser: argparse.ArgumentParser, variants: str, recipes: str) -> None:
    """Add the options of a training run, in groups.   variants, recipes: the help of --variant and --recipe."""
    what = parser.add_argument_group("what is trained")
    what.add_argument("--data", metavar="DIR", help="a folder in ImageNet's layout, or with one folder per class; or "
                      "elpv (solar cells, the default) or synthetic (procedural images)")
    what.add_argument("--variant", metavar="NAME", help=variants)
    what.add_argument("--size", metavar="N", type=int, help="side of the images that crops are cut from, or with "
                      "--keep-aspect the short side (default: the recipe's, 256, or what suits the net)")
    what.add_argument("--keep-aspect", action="store_true", default=None, help="cut from whole images, and not from "
                      "their central squares (default: as the recipe, or as a set was prepared)")
    how = parser.add_argument_group("how")
    how.add_argument("--recipe", metavar="NAME", help=f"{recipes}. Default: our own, fitted to the number of "
                     "images; from 300,000 on, the published one of the variant")
    how.add_argument("--epochs", metavar="N", type=int, help="how often every image is seen (default: the recipe's)")
    how.add_argument("--batch", metavar="N", type=int, help="images per step (default: the recipe's, 32 or 128)")
    how.add_argument("--lr", metavar="N", type=float, help="initial learning rate (default: the recipe's)")
    how.add_argument("--schedule", metavar="NAME", help="of the learning rate, over the whole run: "
                     f"{', '.join(SCHEDULES)} (default: the recipe's)")
    how.add_argument("--warmup", metavar="EPOCHS", type=float, help="in which the learning rate rises from 0 (default: "
                     "the recipe's)")
    how.add_argument("--optimiser", metavar="NAME", help=f"{', '.join(OPTIMISERS)}, with its usual learning rate and "
                     "weight decay (default: the recipe's)")
    how.add_argument("--norm-weight-decay", metavar="N", type=float, help="of batch normalisation's scales and shifts, "
                     "such as 0 (default: that of all parameters)")
    how.add_argument("--ema", metavar="N", type=float, help="validate with a moving average of the weights of this "
                     "factor, such as 0.999")
    how.add_argument("--augment", metavar="NAME=VALUE,...", help=f"how images are varied, a range as LOW:HIGH, such as "
                     f"scale=256:480,cutout=16: {LISTED} (default: the recipe's)")
    how.add_argument("--seed", metavar="N", type=int, help="of weights, order, crops and dropout (default: 0)")
    add_device(how)
    tune = parser.add_argument_group("fine-tuning")
    tune.add_argument("--init-from", metavar="RUN", help="initialise with the weights of a run or checkpoint, wherever "
                      "name and shape are the same")
    tune.add_argument("--new-head", action="store_true", default=None, help="but with a fresh output layer")
    tune.add_argument("--freeze", metavar="LAYERS", help="these are not trained, such as conv1,conv2")
    ranks = parser.add_argument_group("several ranks")
    ranks.add_argument("--parallel", metavar="HOW", help="columns (the paper's two GPUs), data (each rank some of the "
                       "images), hybrid (convolutions by images, fully connected layers by units), or none")
    ranks.add_argument("--ranks", metavar="N", type=int, help="threads (default: 2; with mpiexec, its processes); the "
                       "batch is shared among them, and the learning rate stays that of the whole batch")
    ranks.add_argument("--comm-timeout", metavar="SECONDS", type=float, default=TIMEOUT,
                       help="a rank that is not heard of for so long hangs (default: 60)")
    runs = parser.add_argument_group("runs")
    add_out(runs)
    runs.add_argument("--run-name", metavar="NAME", help="folder of this one (default: data, net and a number)")
    runs.add_argument("--save-every", metavar="STEPS", type=int, default=0, help="a checkpoint after every "
                      "so many steps (one is written every 15 minutes in any case)")
    runs.add_argument("--keep-every", metavar="EPOCHS", type=int, default=0, help="keep the weights alone after every "
                      "so many epochs, in weights/ of the run, for minicnn look --what evolution")
    runs.add_argument("--resume", metavar="RUN", nargs="?", const="", help="go on with RUN, or with the newest run")
    runs.add_argument("--tensorboard", action="store_true", help="metrics as TensorBoard events, too (pip install "
                      "minicnn[tensorboard])")
    runs.add_argument("--ten-crop", action="store_true", help="after training, evaluate by ten crops as well")
    runs.add_argument("--results", metavar="FILE", type=Path, help="after training, add the run to the page FILE.md "
                      "(and FILE.json)")
    runs.add_argument("--note", metavar="TEXT", default="", help="what readers of the page should know of these images")


def add_device(group) -> None:
    """--device, --precision, --threads."""
    group.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or reference (default: auto)")
    group.add_argument("--precision", metavar="NAME", help="of matrix products. On a GPU: fp32, tf32 (default), bf16, "
                       "in which activations are stored, too, or fp16, which scales the loss. On a CPU: fp32 (default) "
                       "or bf16, likewise, where it has the instructions. All else: float32")
    add_threads(group)


def add_quick_device(parser) -> None:
    """--device, --precision and --threads, for a few photographs or none: see `device_of`."""
    parser.add_argument("--device", metavar="NAME", default="auto", help="reference, cpu, cuda, or auto (default)")
    parser.add_argument("--precision", metavar="NAME", help="of matrix products: fp32, tf32 or bf16, as in training "
                        "(default: that of the device)")
    add_threads(parser)


def add_threads(parser) -> None:
    """--threads, which main.py applies for every command."""
    parser.add_argument("--threads", metavar="N", type=int, help="of the processor (default: all cores)")


def device_of(options: argparse.Namespace, device: str) -> str:
    """The device, with the precision of --precision, such as "cpu:bf16". ConfigError where it names another one."""
    precision = getattr(options, "precision", None)
    if not precision:
        return device
    name, _, named = device.partition(":")
    if named not in ("", precision):
        raise ConfigError(f"--device {device} and --precision {precision} contradict each other: give one precision")
    return f"{name}:{precision}"


def add_out(group) -> None:
    """--out, which must not differ between the command that makes a run and those that look for it."""
    group.add_argument("--out", metavar="DIR", default="runs", help="folder of all runs (default: runs)")
