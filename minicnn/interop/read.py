"""`read`: a network from a file of another program, told by its first bytes."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from minicnn.data.preprocess import Preprocess
from minicnn.errors import CheckpointError, ConfigError, MinicnnError, printable
from minicnn.graph import Net
from minicnn.interop.formats.archive import entries
from minicnn.interop.formats.caffe.files import is_caffe
from minicnn.interop.formats.numpy_pickles import NPY
from minicnn.interop.formats.onnx.files import is_onnx
from minicnn.interop.formats.safetensors_files import read_header
from minicnn.interop.formats.stored import StoredFile
from minicnn.interop.formats.torch_files import read_torch
from minicnn.interop.formats.wire import Reader
from minicnn.interop.graphs import GRAPHS, own_metadata, take_metadata
from minicnn.interop.report import Report
from minicnn.interop.state_dict import (
    Builds,
    StateDict,
    cleaned,
    load_state_dict,
    net_for,
    of_torch_file,
    torchvision_preprocess,
)
from minicnn.interop.torch_names import guess

ELSEWHERE = {b"\x89HDF": "an HDF5 file, as Keras writes it, which minicnn does not read; convert it with tf2onnx",
             b"TFL3": "a TensorFlow Lite model, which minicnn does not read; convert its source to ONNX"}


def read(path: str | os.PathLike, *, graph: str | os.PathLike | None = None, model: str | Net | Builds | None = None,
         size: int | None = None, classes: int | None = None, output: str | None = None, device: str = "auto") -> Net:
    """The network in a file of ONNX, PyTorch, safetensors, Caffe or cuda-convnet; `net.source` says what became of it.

    graph: the file with the layers (.prototxt, layers.cfg) beside one with weights.   model: the network of a file
    without a graph, such as "alexnet:torchvision", a Net, or a function of the number of classes that returns one;
    guessed from torchvision's names otherwise.   size, classes: side of the images and number of classes, where the
    file does not say.   output: which of several outputs.   device: as for Net.
    CheckpointError, in one line with the file, for what cannot be read; ConfigError where an argument is missing.
    """
    with _naming(path):
        file = StoredFile(path)
        try:
            kind = kind_of(file)
            if kind in STATE_DICTS:
                return _read_state_dict(file, kind, model, size, device, classes)
            return GRAPHS[kind](file, graph, model=model, size=size, output=output, device=device)
        finally:
            file.close()


@contextlib.contextmanager
def _naming(path: str | os.PathLike) -> Iterator[None]:
    """Errors begin with the file; what a damaged file makes of our own code is one of them."""
    try:
        yield
    except MinicnnError as error:
        name, text = (printable(str(part), ("Cc", "Zl", "Zp")) for part in (path, error))    # layers have any name
        raise type(error)(text if text.startswith(name) else f"{name}: {text}") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged, or not what it seems: {type(error).__name__}: "
                              f"{' '.join(str(error).split())[:200]}") from error


PEEK = {7: ("graph", {1: ("node", ["bytes"])}), 8: ("opset_import", ["bytes"]), 2: ("layers", ["bytes"]),
        100: ("layer", ["bytes"])}
TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


def kind_of(file: StoredFile) -> str:
    """What a file is, by its first bytes: "torch", "safetensors" ...; CheckpointError for what is known and not read.
    """
    head = file.read(0, min(30, file.size), "its beginning")
    for start, why in ELSEWHERE.items():
        if head.startswith(start) or head[4:8] == start:
            raise CheckpointError(why)
    if head[:4] == b"PK\3\4" and head[26:28] == b"\4\0" and file.read(30, 4, "a name") == b"data":
        return "pickle"                                     # of an old cuda-convnet: a single member of this name
    if head[:4] == b"PK\3\4":
        names = entries(file)
        if any(name.endswith("/data.pkl") for name in names):
            return "torch"
        if "config.json" in names:
            raise CheckpointError("a Keras model, which minicnn does not read; export it with tf2onnx")
        return "torch"
    if head.startswith(TORCH_LEGACY):
        return "torch"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.size:
        return "safetensors"                                # of any length of its header; a pickle has no zeros here
    if head[:2] in (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5", b"\x1f\x8b") or head[:6] == NPY:
        return "pickle"
    if re.search(rb"^\s*(layers?\s*\{|input:|name:)", file.read(0, min(2**16, file.size), "its beginning"), re.M):
        raise CheckpointError("is a network of Caffe as text, without weights; read the .caffemodel, with "
                              "--graph FILE.prototxt")
    if re.search(rb"^\[\w+\]\s*\n(?s:.*)^type\s*=", file.read(0, min(2**16, file.size), "its beginning"), re.M):
        raise CheckpointError("is a network of cuda-convnet as text, without weights; read a checkpoint, with "
                              "--graph FILE.cfg")
    why = "it has no layers"
    try:
        message = Reader(file.descriptor, file.size).message(PEEK)
        if is_onnx(message):
            return "onnx"
        if is_caffe(message):
            return "caffe"
    except CheckpointError as error:
        why = str(error)
    raise CheckpointError("a kind of file that minicnn does not read, or damaged; expected ONNX, a PyTorch state dict, "
                          f"safetensors, a caffemodel, or a checkpoint of cuda-convnet (as protocol buffers: {why})")


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
        if (kind := kind_of(file)) not in STATE_DICTS:
            raise CheckpointError(f"a network ({kind}), not weights by name; expected a state dict of PyTorch, or "
                                  "safetensors")
        return STATE_DICTS[kind](file)


def has_graph(path: str | os.PathLike) -> bool:
    """Whether a file holds a network, and not only weights by name."""
    with _naming(path):
        return kind_of(StoredFile(path)) not in STATE_DICTS


def preprocess_in(path: str | os.PathLike) -> Preprocess | None:
    """The preprocessing that the weights in a file expect: of its metadata, else by torchvision's names; else None."""
    with _naming(path):
        file = StoredFile(path)
        kind = kind_of(file)
        report = Report(kind)
        if kind in STATE_DICTS:
            _take_preprocess(STATE_DICTS[kind](file), report, 224)
        elif kind == "onnx":
            take_metadata(own_metadata(file), report)
        return report.preprocess


def _read_state_dict(file: StoredFile, kind: str, model, size: int | None, device: str, classes: int | None) -> Net:
    state = STATE_DICTS[kind](file)
    report = Report(kind, f"{file.path.name}: {len(state.tensors)} tensors, {file.size / 1e6:.1f} MB, no graph")
    net = net_for(state, model, size, device, report, classes)
    load_state_dict(net, state, report)
    _take_preprocess(state, report, net.input_shape[0])
    net.source = report
    return net


def _take_preprocess(state: StateDict, report: Report, crop: int) -> None:
    """The preprocessing of weights by name: what the metadata say, else torchvision's where the names are."""
    if (found := guess(state.shapes)) is not None:
        report.preprocess, report.preprocess_source = torchvision_preprocess(found[0], crop)
    take_metadata({key: _json(text) for key, text in state.metadata.items()}, report)


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
