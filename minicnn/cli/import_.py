"""minicnn import: a network, or weights, of another program as a checkpoint of minicnn."""

from __future__ import annotations

import argparse

from minicnn.experiment.foreign import compared, import_file, need_graph

ABOUT = "Make a checkpoint of a network from ONNX, PyTorch, Caffe or cuda-convnet, or of weights by name."
MORE = """examples:
  minicnn import resnet18.pth resnet18.safetensors          weights by torchvision's names: the network is known
  minicnn import net.pth net.safetensors --model my_net.py:build     weights of a network of your own
  minicnn import model.onnx model.safetensors --labels words.txt --check
  minicnn import bvlc.caffemodel out.safetensors --graph deploy.prototxt --mean 104,117,123
Exit code 1 if --check or --expect finds a difference.
Then: minicnn predict OUT.safetensors photo.jpg; minicnn train MODEL --init-from OUT.safetensors --new-head"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help=".onnx, .pth, .pt, .safetensors, .caffemodel, a checkpoint of "
                        "cuda-convnet, bvlc_alexnet.npy")
    parser.add_argument("out", metavar="OUT.safetensors", help="the checkpoint to write")
    parser.add_argument("--graph", metavar="FILE", help="the layers, where FILE has weights alone: .prototxt, "
                        "layers.cfg")
    parser.add_argument("--model", metavar="NAME", help="the network, where FILE has no graph: alexnet:torchvision, "
                        "resnet18, FILE.py:FUNCTION (default: by torchvision's names)")
    parser.add_argument("--size", metavar="N", type=int, help="side of the images, where FILE does not say")
    parser.add_argument("--classes", metavar="K", type=int, help="number of classes, where FILE has no graph "
                        "(default: as many as its last layer has outputs)")
    parser.add_argument("--output", metavar="NAME", help="which output, where FILE has several")
    parser.add_argument("--mean", metavar="FILE|b,g,r", help="what is subtracted from the pixels, where FILE does not "
                        "say")
    parser.add_argument("--check", action="store_true", help="compare layer by layer with the source in onnxruntime")
    parser.add_argument("--expect", metavar=("IN", "OUT"), nargs=2, help="compare with logits that the source has "
                        "computed: .npy files of images (N, C, H, W) as it takes them, and of logits")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one on each line, or JSON")


def run(options: argparse.Namespace) -> int:
    need_graph(options.file, options.check)
    net = import_file(options.file, options.out, graph=options.graph, model=options.model, size=options.size,
                      classes=options.classes, output=options.output, mean=options.mean, labels=options.labels)
    print(net.source)
    print(f"written   {options.out}: {net.num_params:,} parameters, {net.num_classes:,} classes")
    return 0 if compared(net, options.file, options.check, options.expect) else 1
