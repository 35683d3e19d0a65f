"""minicnn look: pictures of what a trained network responds to."""

from __future__ import annotations

import argparse

from minicnn.errors import ConfigError, expected_one_of
from minicnn.experiment.look import RULES, WHATS, look
from minicnn.experiment.options import add_out, add_quick_device
from minicnn.visualize.rules import LRN_RULES

ABOUT = "Draw what a trained network responds to, with captions that say what was computed."
MORE = """what is drawn, for --what:
  deconv, guided, gradient   one activation projected to the pixels: deconvnet, guided backpropagation, or gradient
  saliency, integrated       how the class score depends on each pixel: largest gradient, or integrated gradients
  gradcam                    where the maps of a layer raise the class score
  occlusion                  a square is moved over the photograph: a map, the probability, the most probable class
  maps                       the activation maps of a layer
  top                        the images of a set with the largest activations: patches beside their projections
  evolution                  the same through training, of a run with --keep-every
  invariance                 photographs shifted, enlarged and rotated: how features and the probability change
  correspondence             the same part (--box) of several photographs covered: whether features change alike
  neighbours                 the training images with the nearest features
  columns                    colour and grey in the two columns of AlexNet, as a number"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="RUN", help="a run's folder (then its best checkpoint), its name, "
                        "a checkpoint, or pretrained: the network of this package")
    parser.add_argument("files", metavar="PHOTO", nargs="*", help="photographs, directly after RUN; for top "
                        "and evolution, the set (default: the held-out, or the training images of the run; of "
                        "pretrained drawn samples)")
    parser.add_argument("--what", metavar="WHAT", default="deconv", help=f"{', '.join(WHATS)} (default: deconv)")
    parser.add_argument("--layer", metavar="NAME", help="such as conv5 (default: the last with rows and columns; "
                        "for invariance and neighbours what the output layer reads)")
    parser.add_argument("--unit", metavar="K", type=int, help="a map, or unit, counted from 0 (default: the one with "
                        "the largest activation)")
    parser.add_argument("--class", metavar="NAME", dest="label", help="for class scores, occlusion and invariance "
                        "(default: the most probable; for invariance, that of its folder)")
    parser.add_argument("--lrn", metavar="HOW", choices=LRN_RULES, help="what local response normalisation passes "
                        "down: identity (default for deconv) or gradient (default for the others)")
    parser.add_argument("--square", metavar="N", type=int, help="occlusion: side in pixels (default: 48, and less for "
                        "images smaller than 224)")
    parser.add_argument("--step", metavar="N", type=int, help="occlusion: pixels it is moved (default: 8, and less for "
                        "images smaller than 224)")
    parser.add_argument("--grey", metavar="N", type=int, help="what covers a photograph, or surrounds it: 0 to 255 "
                        "(default: the mean that preprocessing subtracts)")
    parser.add_argument("--box", metavar="TOP,LEFT,HEIGHT,WIDTH", action="append", help="correspondence: the part, in "
                        "pixels of what the network takes; once for all photographs or once for each")
    parser.add_argument("--sanity", action="store_true", help="below a picture by gradients, the same with newly "
                        "initialised layers")
    parser.add_argument("--maps", metavar="N", type=int, default=4, help="top, evolution: maps without --unit "
                        "(default: 4)")
    parser.add_argument("--rule", metavar="RULE", default="deconv", help="top, evolution: of the projections: "
                        f"{', '.join(RULES)} (default: deconv)")
    parser.add_argument("--data", metavar="DIR", help="other images than those of the run")
    parser.add_argument("--images", metavar="N", type=int, help="at most so many images of a set, drawn at random "
                        "(default: all)")
    parser.add_argument("--to", metavar="DIR", help="folder of the pictures (default: look/ beside the checkpoint)")
    add_quick_device(parser)
    add_out(parser)


def run(options: argparse.Namespace) -> int:
    for name, known in (("what", WHATS), ("rule", tuple(RULES))):
        if (value := getattr(options, name)) not in known:
            raise ConfigError(f"--{name} cannot be {value!r}: {expected_one_of(value, known)}")
    if options.maps < 1:
        raise ConfigError(f"--maps must be at least 1, got {options.maps}")
    if options.images is not None and options.images < 1:
        raise ConfigError(f"--images must be at least 1, got {options.images}")
    for path in look(options):
        print(path)
    return 0
