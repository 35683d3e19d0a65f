"""`read`: a network from a file of another program, told by its first bytes."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minicnn.data.preprocess import Preprocess
from minicnn.errors import CheckpointError, ConfigError, MinicnnError
from minicnn.graph import Net
from minicnn.interop.formats.archive import entries
from minicnn.interop.formats.caffe_files import Blobs, is_caffe, read_prototxt, weights_of
from minicnn.interop.formats.caffe_layers import read_caffe
from minicnn.interop.formats.caffe_schema import NET
from minicnn.interop.formats.onnx_files import is_onnx, read_onnx
from minicnn.interop.formats.onnx_schema import MODEL
from minicnn.interop.formats.safetensors_files import read_header
from minicnn.interop.formats.stored import StoredFile
from minicnn.interop.formats.torch_files import read_torch
from minicnn.interop.formats.wire import Reader
from minicnn.interop.graph.idioms import recognise
from minicnn.interop.graph.lower import lower
from minicnn.interop.report import Report
from minicnn.interop.state_dict import (
    StateDict,
    Undrawn,
    cleaned,
    load_state_dict,
    net_for,
    of_torch_file,
    torchvision_preprocess,
)
from minicnn.interop.torch_names import guess

ELSEWHERE = {b"\x89HDF": "an HDF5 file, as Keras writes it, which minicnn does not read; convert it with tf2onnx",
             b"TFL3": "a TensorFlow Lite model, which minicnn does not read; convert its source to ONNX"}


def read(path: str | os.PathLike, *, graph: str | os.PathLike | None = None, model: str | Net | None = None,
         size: int | None = None, output: str | None = None, device: str = "auto") -> Net:
    """The network in a file of ONNX, PyTorch, safetensors, Caffe or cuda-convnet; `net.source` says what became of it.

    graph: the file with the layers (.prototxt, layers.cfg) beside one with weights.   model: the network of a file
    without a graph, such as "alexnet:torchvision", or a Net; guessed from torchvision's names otherwise.   size: side
    of the images, where the file does not say.   output: which of several outputs.   device: as for Net.
    CheckpointError, in one line with the file, for what cannot be read; ConfigError where an argument is missing.
    """
    with _naming(path):
        file = StoredFile(path)
        try:
            kind = kind_of(file)
            if kind in STATE_DICTS:
                return _read_state_dict(file, kind, model, size, device)
            return GRAPHS[kind](file, graph, size=size, output=output, device=device)
        finally:
            file.close()


@contextlib.contextmanager
def _naming(path: str | os.PathLike) -> Iterator[None]:
    """Errors begin with the file; what a damaged file makes of our own code is one of them."""
    try:
        yield
    except MinicnnError as error:
        text = str(error)
        raise type(error)(text if text.startswith(str(path)) else f"{path}: {text}") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged, or not what it seems: {type(error).__name__}: "
                              f"{' '.join(str(error).split())[:200]}") from error


def kind_of(file: StoredFile) -> str:
    """What a file is, by its first bytes: "torch", "safetensors" ...; CheckpointError for what is known and not read.
    """
    head = file.read(0, min(16, file.size), "its beginning")
    for start, why in ELSEWHERE.items():
        if head.startswith(start) or head[4:8] == start:
            raise CheckpointError(why)
    if head[:4] == b"PK\3\4":
        names = entries(file)
        if any(name.endswith("/data.pkl") for name in names):
            return "torch"
        if "config.json" in names:
            raise CheckpointError("a Keras model, which minicnn does not read; export it with tf2onnx")
        return "torch"
    if head[:2] == b"\x80\x02":
        return "torch"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.size:
        return "safetensors"
    if re.search(rb"^\s*(layers?\s*\{|input:|name:)", file.read(0, min(2**16, file.size), "its beginning"), re.M):
        raise CheckpointError("is a network of Caffe as text, without weights; read the .caffemodel, with "
                              "--graph FILE.prototxt")
    with contextlib.suppress(CheckpointError):
        message = Reader(file.descriptor, file.size).message(PEEK)
        if is_onnx(message):
            return "onnx"
        if is_caffe(message):
            return "caffe"
    raise CheckpointError("a kind of file that minicnn does not read, or damaged; expected ONNX, a PyTorch state dict, "
                          "safetensors, a caffemodel, or a checkpoint of cuda-convnet")


# ---- graphs
PEEK = {7: ("graph", {1: ("node", ["bytes"])}), 8: ("opset_import", ["bytes"]), 2: ("layers", ["bytes"]),
        100: ("layer", ["bytes"])}


def _onnx(file: StoredFile, graph, **options) -> Net:
    reader = Reader(file.descriptor, file.size)
    found = read_onnx(file, reader, reader.message(MODEL))
    report = Report("onnx", found.about, notes=found.notes)
    net = described(lower(recognise(found.graph), report, **options), found.own, report)
    net.source = report
    return net


def described(net: Net, own: dict, report: Report) -> Net:
    """A network that minicnn has written, with all that the graph does not say: as it was described.

    Only where the description has the same arrays, and computes the same from noise; the graph is what counts.
    """
    take_metadata(own, report)
    if not isinstance(own.get("description"), dict):
        return net
    try:
        again = Net.from_description(own["description"], device=net.ops.spec, values=Undrawn())
        theirs = net.arrays()
        again.load_arrays({name: net.ops.to_host(theirs[name]).reshape(array.shape)
                           for name, array in again.arrays().items()})
        if again.input_shape != net.input_shape or not _same_logits(net, again):
            raise CheckpointError("computes something else")
    except (MinicnnError, LookupError, TypeError, ValueError) as error:
        words = " ".join(str(error).split())[:150]
        report.note(f"the description of the network in the metadata was not used: {words}")
        return net
    return again


def _same_logits(one: Net, two: Net) -> bool:
    x = np.random.default_rng(0).uniform(-100, 100, (1, *one.input_shape)).astype(np.float32)
    a, b = (np.asarray(net.ops.to_host(net(x)), np.float64).reshape(-1) for net in (one, two))
    return a.shape == b.shape and bool(np.abs(a - b).max() <= 1e-4 * np.abs(a).max())


def take_metadata(own: dict, report: Report) -> None:
    """Names of the classes and the preprocessing, where the file has them."""
    classes, preprocess = own.get("classes"), own.get("preprocess")
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        report.classes = classes
    if isinstance(preprocess, dict):
        with contextlib.suppress(ConfigError, TypeError):
            report.preprocess, report.preprocess_source = Preprocess.from_dict(preprocess), "the file's metadata"


def _caffe(file: StoredFile, graph, *, size: int | None, **options) -> Net:
    reader = Reader(file.descriptor, file.size)
    message = reader.message(NET)
    weights = weights_of(message, Blobs(file, reader))
    skipped: list[str] = []
    if graph is not None:
        message, skipped = read_prototxt(Path(graph))
    found = read_caffe(message, weights, size)
    arrays = sum(len(blobs) for blobs in weights.values())
    report = Report("caffe", f"{file.path.name}: {found.graph.name}, {arrays} arrays, {file.size / 1e6:.1f} MB",
                    notes=found.notes)
    if skipped:
        report.note(f"fields that are not known were skipped: {', '.join(skipped[:12])}")
    net = lower(found.graph, report, size=size, **options)
    caffe_preprocess(net, found.transform, report)
    net.source = report
    return net


CAFFE_MEANS = {"vgg": (103.939, 116.779, 123.68), "googlenet": (104.0, 117.0, 123.0),
               "alexnet": (104.007, 116.669, 122.679), "caffenet": (104.007, 116.669, 122.679)}


def caffe_preprocess(net: Net, transform: dict, report: Report) -> None:
    """BGR in 0..255 minus a mean, times a scale: of the data layer, else by the name of the network, else assumed."""
    if len(net.input_shape) != 3 or net.input_shape[2] != 3 or net.input_shape[0] != net.input_shape[1]:
        return
    crop, mean = net.input_shape[0], transform.get("mean_value")
    source = "the data layer of the file"
    known = next((family for family in CAFFE_MEANS if family in net.name.lower()), None)
    if mean is None and known is not None:
        mean, source = CAFFE_MEANS[known], f"the usual mean of networks called {net.name!r}"
    if mean is None:
        source = "assumed: BGR as in Caffe, and no mean; name it with --mean b,g,r or FILE"
    if "mean_file" in transform:
        report.note(f"its mean image is {transform['mean_file']}: give it with --mean FILE")
    scale = transform.get("scale", 1.0)
    std = None if scale == 1.0 or not scale > 0 else (1.0 / scale,) * 3
    mean = None if mean is None else tuple(mean) * (3 if len(mean) == 1 else 1)
    with contextlib.suppress(ConfigError):
        report.preprocess = Preprocess(size=max(crop, 256 if crop in (224, 227) else round(crop * 256 / 227)),
                                       resize="squash", interpolation="bilinear", crop=crop, order="bgr", mean=mean,
                                       std=std)
        report.preprocess_source = source


GRAPHS = {"onnx": _onnx, "caffe": _caffe}


# ---- weights by name
def _torch(file: StoredFile) -> StateDict:
    return of_torch_file(read_torch(file))


def _safetensors(file: StoredFile) -> StateDict:
    tensors, metadata = read_header(file)
    if "minicnn" in metadata or metadata.get("format") == "minicnn":
        raise CheckpointError("a checkpoint of minicnn, which needs no import; predict, evaluate and --init-from take "
                              "it as it is")
    state = cleaned(dict(tensors), [])
    state.metadata = metadata
    return state


STATE_DICTS = {"torch": _torch, "safetensors": _safetensors}


def read_weights(path: str | os.PathLike) -> StateDict:
    """The tensors of a PyTorch or safetensors file, by name."""
    with _naming(path):
        file = StoredFile(path)
        return STATE_DICTS[kind_of(file)](file)


def _read_state_dict(file: StoredFile, kind: str, model, size: int | None, device: str) -> Net:
    state = STATE_DICTS[kind](file)
    report = Report(kind, f"{file.path.name}: {len(state.tensors)} tensors, {file.size / 1e6:.1f} MB, no graph")
    net = net_for(state, model, size, device, report)
    load_state_dict(net, state, report)
    if guess(state.shapes) is not None:
        torchvision_preprocess(net, report)
    take_metadata({key: _json(text) for key, text in state.metadata.items()}, report)
    net.source = report
    return net


def _json(text):
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


def read_classes(path: str | os.PathLike) -> list[str]:
    """Names of classes: a line each, or a JSON list, or a JSON object by index ("0": "cat", or ["n01", "cat"])."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        if not text.lstrip().startswith(("[", "{")):
            return [line.strip() for line in text.splitlines() if line.strip()]
        data = json.loads(text)
        items = data if isinstance(data, list) else [data[str(k)] for k in range(len(data))]
        return [str(item[-1]) if isinstance(item, list) else str(item) for item in items]
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as names of classes ({error}); expected one on each line") from error
