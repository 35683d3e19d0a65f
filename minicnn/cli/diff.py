"""minicnn diff: two files of weights, tensor by tensor."""

from __future__ import annotations

import argparse

from minicnn.experiment.foreign import compare

ABOUT = "Compare two files of weights tensor by tensor: checkpoints, ONNX, Caffe, PyTorch's state dicts, safetensors."
MORE = """Exit code 0 if all tensors are equal, 1 if not. Networks (checkpoints of minicnn, ONNX, Caffe) are compared by
the names of minicnn's layers; a network and weights by name (PyTorch, safetensors), by PyTorch's names."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", help="a file of weights")
    parser.add_argument("second", metavar="B", help="another one")


def run(options: argparse.Namespace) -> int:
    lines, equal = compare(options.first, options.second)
    print("\n".join(lines))
    return 0 if equal else 1
