"""Files of other programs: how a few of each format are made, without these programs, and how they are read."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from minicnn import Builder, Net, interop
from minicnn.interop.formats.wire import field
from minicnn.interop.state_dict import export_state_dict
from minicnn.system.files import write_safetensors
from tests.helpers import caffe_bytes, convnet_145, torch_pickle

WIDTH = {"kernels": (2, 4, 4, 4, 4), "fc": 4, "classes": 3}


@cache
def net(norm: bool = True) -> Net:
    b = Builder((3, 5, 3), "small")
    b.conv("conv1", 4, 3, padding=1)
    if norm:
        b.batchnorm("bn1")
    b.relu("relu1")
    b.avgpool("pool1", 2, stride=2, padding=1, ceil=True, count_pad="padding")
    b.lrn("norm1", n=3, groups=2)
    b.flatten("flat")
    b.linear("fc2", 7)
    b.loss()
    return b.net(seed=3, device="reference")


def state() -> dict[str, np.ndarray]:
    return export_state_dict(net())


def make_torch(folder: Path) -> None:
    tensors = {name: torch_pickle.tensor(array, str(k)) for k, (name, array) in enumerate(state().items())}
    torch_pickle.save_zip(folder / "a.pth", tensors)
    prefixed = {f"module.{name}": one for name, one in tensors.items()}
    torch_pickle.save_zip(folder / "b.ckpt", prefixed, wrap="state_dict")
    torch_pickle.save_legacy(folder / "c.pt", tensors)


def make_safetensors(folder: Path) -> None:
    write_safetensors(folder / "a.safetensors", state(), {"format": "pt", "classes": json.dumps(list("abcdefg"))},
                      checksums=False)


def make_onnx(folder: Path) -> None:
    interop.write(net(), folder / "a.onnx")
    data = (folder / "a.onnx").read_bytes()
    (folder / "b.onnx").write_bytes(data.replace(b"minicnn", b"another"))       # without its description
    nodes = [field(1, field(1, "image") + field(2, "s") + field(4, "Shape")),
             field(1, field(1, ["image", "s"]) + field(2, "r") + field(4, "Reshape")),
             field(1, field(1, "r") + field(2, "y") + field(4, "Relu"))]
    dims = b"".join(field(1, field(1, size)) for size in (1, 3, 5, 3))
    image = field(11, field(1, "image") + field(2, field(1, field(1, 1) + field(2, dims))))
    graph = b"".join(nodes) + image + field(12, field(1, "y"))
    (folder / "c.onnx").write_bytes(field(8, field(2, 17)) + field(7, graph))


def make_onnx_cases(folder: Path) -> None:
    """Files of tests/interop: the ways to flatten maps, a disguise, and networks with every kind of layer."""
    from tests.helpers.onnx_models import save
    from tests.interop import test_onnx, test_onnx_write
    for how, (nodes, constants, batch) in test_onnx.FLATTENED.items():
        save(test_onnx.classifier(nodes, batch, **constants), folder / f"{how}.onnx")
    save(test_onnx.disguised(), folder / "disguised.onnx")
    for name in ("every layer", "pixelwise", "pyramid"):
        interop.write(test_onnx_write.filled(test_onnx_write.NETS[name]()), folder / f"{name}.onnx")


def layers() -> list[dict]:
    rng = np.random.default_rng(0)
    w, b, w2 = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4), rng.standard_normal((5, 4 * 2 * 3))
    stats = [caffe_bytes.blob(rng.uniform(1, 2, 4)), caffe_bytes.blob(rng.uniform(1, 2, 4)), caffe_bytes.blob([2.0])]
    one = lambda name, kind, bottom, **more: {"name": name, "type": kind, "bottom": [bottom],   # noqa: E731
                                              "top": [name], **more}
    return [{"name": "data", "type": "Input", "top": ["data"], "input_param": {"shape": [{"dim": [1, 3, 3, 5]}]}},
            one("conv", "Convolution", "data", convolution_param={"num_output": 4, "kernel_size": [3], "pad": [1]},
                blobs=[caffe_bytes.blob(w), caffe_bytes.blob(b, legacy=True)]),
            one("bn", "BatchNorm", "conv", blobs=stats), one("relu", "ReLU", "bn"),
            one("pool", "Pooling", "relu", pooling_param={"pool": 1, "kernel_size": 2, "stride": 2}),
            one("fc", "InnerProduct", "pool", inner_product_param={"num_output": 5, "bias_term": 0},
                blobs=[caffe_bytes.blob(w2)]), one("prob", "Softmax", "fc")]


def make_caffe(folder: Path) -> None:
    (folder / "a.caffemodel").write_bytes(caffe_bytes.net(layers()))
    text = caffe_bytes.text({"name": "n", "layer": layers()}, caffe_bytes.schema.NET)
    (folder / "a.prototxt").write_text(text.replace("pool: 1", "pool: AVE  # mean"))


def make_convnet(folder: Path) -> None:
    found = convnet_145.sections(**WIDTH)
    second, arrays = convnet_145.params(found), convnet_145.weights(found, 2, np.random.default_rng(0))
    (folder / "layers.cfg").write_text(convnet_145.cfg(found))
    (folder / "layer-params.cfg").write_text(convnet_145.cfg(second))
    for name, as_list in (("a.pickle", True), ("b.pickle", False)):
        (folder / name).write_bytes(convnet_145.checkpoint(found, arrays, as_list=as_list, image=67, second=second))


def make_npy(folder: Path) -> None:
    arrays = {layer: [net(False).params[f"{layer}.{local}"].data for local in "wb"] for layer in ("conv1", "fc2")}
    np.save(folder / "a.npy", arrays, allow_pickle=True)


def read(folder: Path, file: Path) -> None:
    model = None if file.suffix in (".pickle", ".caffemodel", ".onnx") else net(file.suffix != ".npy")
    interop.read(file, model=model, device="reference")


def read_text(folder: Path, file: Path) -> None:
    """A graph as text, with the weights beside it."""
    weights = folder / ("a.caffemodel" if file.suffix == ".prototxt" else "a.pickle")
    graph, size = (folder / "layers.cfg", 67) if file.suffix == ".cfg" else (file, None)
    interop.read(weights, graph=graph, size=size, device="reference")


# Kind -> (makes the files, their patterns, what reads one)
FOREIGN = {"torch": (make_torch, ("*.pth", "*.ckpt", "*.pt"), read),
           "torch's names": (make_safetensors, ("*.safetensors",), read), "onnx": (make_onnx, ("*.onnx",), read),
           "caffemodel": (make_caffe, ("*.caffemodel",), read), "prototxt": (make_caffe, ("*.prototxt",), read_text),
           "cuda-convnet": (make_convnet, ("*.pickle",), read), "cfg": (make_convnet, ("*.cfg",), read_text),
           "npy": (make_npy, ("*.npy",), read)}
if find_spec("onnx") and find_spec("onnxruntime"):
    FOREIGN["onnx, cases"] = make_onnx_cases, ("*.onnx",), read
