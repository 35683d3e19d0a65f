"""The `minicnn` command.

    minicnn train MODEL --data DIR        train a network of minicnn.models, or FILE.py:FUNCTION
    minicnn evaluate RUN ...              the test images: one crop and ten; of several runs, also their average
    minicnn predict RUN FILE ...          the classes that a trained network predicts for photographs
    minicnn look RUN [PHOTO ...]          draw what a trained network responds to: deconvnet, Grad-CAM, occlusion ...
    minicnn explore RUN                   the same by clicking, on a page in the browser
    minicnn report RUN                    one HTML file about a run: curves, predictions, what units respond to ...
    minicnn prepare SOURCE OUT            decode photographs once, such as ImageNet's tars, into shards for training
    minicnn verify RUN|SHARDS|FILE ...    check what minicnn wrote against its checksums
    minicnn summary MODEL                 the table of a network: shapes, parameters, multiply-adds, bytes
    minicnn draw MODEL|RUN                a network as SVG or PNG: boxes to scale, parameters and multiply-adds
    minicnn models [MODEL]                the networks of this package; of one, its variants and recipes
    minicnn import FILE OUT.safetensors   a network or weights from ONNX, PyTorch, Caffe or cuda-convnet
    minicnn export RUN OUT                a trained network as ONNX, or its weights by PyTorch's names
    minicnn diff A B                      two files of weights, tensor by tensor
    minicnn gradcheck [what ...]          check the hand-written gradients against finite differences
    minicnn doctor                        versions, threads and devices, for a bug report

Exit code 0: success; 1: a gradient is wrong, a file is damaged, or two differ; 2: the command cannot be carried out,
with one line that says why; 130: stopped by Ctrl-C; 141: the reader of a pipe has gone.
"""

from __future__ import annotations

import argparse
import sys

from minicnn.backend.cpu import set_threads
from minicnn.cli import (
    diff,
    doctor,
    evaluate,
    export,
    gradcheck,
    import_,
    models,
    predict,
    prepare,
    summary,
    train,
    verify,
)
from minicnn.cli.pictures import draw, explore, look, report
from minicnn.errors import expected_one_of
from minicnn.experiment.options import Parser
from minicnn.experiment.say import exit_code

COMMANDS = {"train": train, "evaluate": evaluate, "predict": predict, "look": look, "explore": explore,
            "report": report, "prepare": prepare, "verify": verify, "summary": summary, "draw": draw,
            "models": models, "import": import_, "export": export, "diff": diff, "gradcheck": gradcheck,
            "doctor": doctor}
FORMER = {"variants": ["models", "alexnet"]}        # commands of version 0.1.0 that have another name


def wide(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=110)


def parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser that lists all commands, and theirs by name."""
    from minicnn import __version__

    whole = Parser(prog="minicnn", description="Convolutional networks written by hand, from AlexNet on.",
                   epilog="To begin: minicnn train alexnet. A command explains itself: minicnn train --help",
                   formatter_class=wide)
    whole.add_argument("--version", action="version", version=f"minicnn {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, title="commands", metavar="command [options]")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.ABOUT, description=command.ABOUT,
                                  epilog=getattr(command, "MORE", None), formatter_class=wide)
        command.arguments(sub)
    return whole, commands.choices


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in FORMER:
        arguments[:1] = FORMER[arguments[0]]
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        print(f"error: unknown command {arguments[0]!r}: {expected_one_of(arguments[0], COMMANDS)}", file=sys.stderr)
        return 2
    whole, commands = parsers()
    if not arguments:
        return exit_code(whole.print_help) or 0
    if arguments[0] not in COMMANDS:
        whole.parse_args(arguments)                     # --help, or an error
    command = commands[arguments[0]]
    options, unknown = command.parse_known_intermixed_args(arguments[1:])      # photographs before options, or after
    if unknown:
        command.error(f"unrecognized arguments: {' '.join(unknown)}")
    return exit_code(lambda: run(COMMANDS[arguments[0]], options))


def run(command, options: argparse.Namespace) -> int:
    """Run one of COMMANDS, on the threads of --threads where they are given."""
    if getattr(options, "threads", None) is not None:
        set_threads(options.threads)
    return command.run(options)


if __name__ == "__main__":
    sys.exit(main())
