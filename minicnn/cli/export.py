"""minicnn export: a trained network for other programs."""

from __future__ import annotations

import argparse

from minicnn.experiment.foreign import compared, export_checkpoint, need_graph
from minicnn.experiment.options import add_out
from minicnn.train.runs.run_dir import BEST, find_checkpoint

ABOUT = "Write a trained network as ONNX, or its weights as safetensors by PyTorch's names and in its layout."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="RUN", help="a run's folder (then its best checkpoint), its name, a "
                        "checkpoint, or pretrained: the network of this package")
    parser.add_argument("file", metavar="OUT", help="OUT.onnx, or OUT.safetensors")
    parser.add_argument("--softmax", action="store_true", help="probabilities instead of logits (OUT.onnx)")
    parser.add_argument("--check", action="store_true", help="compare layer by layer with OUT.onnx in onnxruntime")
    add_out(parser)


def run(options: argparse.Namespace) -> int:
    need_graph(options.file, options.check)
    net, _ = export_checkpoint(find_checkpoint(options.out, options.checkpoint, BEST), options.file, options.softmax)
    print(f"written   {options.file}: {net.num_params:,} parameters")
    return 0 if compared(net, options.file, options.check) else 1
