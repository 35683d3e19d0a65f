"""ONNX files, without the onnx package: the graph in neutral operations, and the weights, which stay in the file.

A table of the messages (schema.py) is enough to read them (wire.py); reading needs no dependency, copies nothing,
and bounds everything before it is believed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.interop.formats.onnx.operators import translate
from minicnn.interop.formats.onnx.schema import NEWEST_OPSET
from minicnn.interop.formats.onnx.tensors import Tensors
from minicnn.interop.formats.stored import StoredFile
from minicnn.interop.formats.wire import Reader
from minicnn.interop.graph.neutral import Graph, Op, refuse

MAX_METADATA = 2**24            # bytes of one entry, which may hold a mean image


@dataclass
class OnnxFile:
    """graph: neutral.   about: for the report.   metadata: of the file.   notes: what was ignored."""

    graph: Graph
    about: str
    opset: int
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def own(self) -> dict:
        """What minicnn has written into its metadata; {} for files of others."""
        try:
            found = json.loads(self.metadata.get("minicnn", "{}"))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def is_onnx(message: dict) -> bool:
    return bool(message.get("opset_import")) and bool(message.get("graph", {}).get("node"))


def read_onnx(file: StoredFile, reader: Reader, message: dict) -> OnnxFile:
    """The graph of a parsed ModelProto. CheckpointError for what cannot be read."""
    if message.get("functions"):
        names = ", ".join(one.get("name", "") for one in message["functions"][:3])
        raise CheckpointError(f"has functions of its own ({names}); inline them: onnx.inliner.inline_local_functions")
    if message.get("training_info") or message["graph"].get("sparse_initializer"):
        raise CheckpointError("holds training information or sparse weights; export the model for inference")
    versions = {entry.get("domain", ""): entry.get("version", 0) for entry in message["opset_import"]}
    opset = versions.get("", versions.get("ai.onnx", 1))
    translation, found = _Translation(file, reader, opset), message["graph"]
    graph = translation.graph(found)
    graph.ours = message.get("producer_name") == "minicnn"
    metadata = {entry.get("key", ""): reader.bytes(entry["value"], MAX_METADATA).decode("utf-8", "replace")
                for entry in message.get("metadata_props", ()) if "value" in entry}
    shape = ", ".join(f"{name} [{','.join('N' if size is None else str(size) for size in sizes)}]"
                      for name, sizes in graph.inputs.items())
    producer = f"{message.get('producer_name', 'unknown')} {message.get('producer_version', '')}".strip()
    about = (f"{file.path.name}: opset {opset}, {producer}, {len(found.get('initializer', ()))} tensors, "
             f"{file.size / 1e6:.1f} MB; input {shape}")
    if opset > NEWEST_OPSET:
        translation.notes.append(f"opset {opset} is newer than {NEWEST_OPSET}, up to which the operators were read")
    return OnnxFile(graph, about, opset, metadata, translation.notes)


class _Translation:
    """Of one file: its nodes by the rules of its opset."""

    def __init__(self, file: StoredFile, reader: Reader, opset: int):
        self.tensors, self.opset, self.reader = Tensors(file, reader), opset, reader
        self.constants: dict = {}
        self.statistics: set[str] = set()                   # outputs of normalisations that were exported in training
        self.notes: list[str] = []

    def graph(self, message: dict) -> Graph:
        for tensor in message.get("initializer", ()):
            name = tensor.get("name", "")
            if name in self.constants:
                raise CheckpointError(f"damaged: two tensors are called {name!r}")
            self.constants[name] = self.tensors.read(tensor, name)
        inputs = {entry.get("name", ""): _shape(entry) for entry in message.get("input", ())
                  if entry.get("name", "") not in self.constants}       # old files list the weights as inputs, too
        outputs = [entry.get("name", "") for entry in message.get("output", ())]
        ops = [op for k, node in enumerate(message.get("node", ())) if (op := self.op(node, k)) is not None]
        outputs = [name for name in outputs if name not in self.statistics]
        return Graph(inputs, outputs, ops, self.constants, message.get("name") or "net")

    def op(self, node: dict, number: int) -> Op | None:
        """The operation; None for a Constant, which is a weight like any other."""
        kind, name = node.get("op_type", ""), node.get("name", "")
        outputs = node.get("output", [])
        op = Op(kind, name, list(node.get("input", [])), list(outputs), {}, kind)
        if not outputs:
            raise CheckpointError(f"{kind} {name or number!r} makes nothing")
        try:
            attrs = {attr.get("name", ""): self.value(attr, op) for attr in node.get("attribute", ())}
            op.kind, op.attrs = translate(kind, node.get("domain", ""), attrs, self.opset)
        except CheckpointError as error:
            raise refuse(op, str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise refuse(op, f"has attributes that are missing or damaged ({type(error).__name__}: {error})") from error
        if kind == "If":
            op.kind, op.attrs = "if", self._branches(attrs)
        if op.kind == "constant":
            if outputs[0] in self.constants:
                raise refuse(op, "makes what is made already")
            self.constants[outputs[0]] = op.attrs["value"]
            return None
        if op.attrs.pop("training", False):
            self.statistics.update(op.outputs[1:])
            op.outputs = op.outputs[:1]
            self.notes.append(f"{op} was exported in training mode; the running statistics are used")
        return op

    def value(self, attr: dict, op: Op):
        """What an attribute holds, by the fields that are set."""
        if "g" in attr:
            return attr["g"]
        if "t" in attr:
            found = self.tensors.read(attr["t"], f"{op.name or op.outputs[0]}.{attr.get('name', '')}")
            return found if op.kind == "Constant" or isinstance(found, np.ndarray) else found.read()
        for name in ("ints", "i", "f", "s"):
            if name in attr:
                return attr[name]
        if "floats" in attr:
            return np.concatenate([np.frombuffer(self.reader.bytes(span), "<f4") for span in attr["floats"]]).tolist()
        return {1: 0.0, 2: 0, 3: "", 7: []}.get(attr.get("type"))

    def _branches(self, attrs: dict) -> dict:
        """Both branches of an If, with the names that they read from outside."""
        branches, reads = {}, []
        for name, key in (("then", "then_branch"), ("else", "else_branch")):
            branch = self.graph({**attrs[key], "input": []})
            branches[name] = branch
            reads += [source for op in branch.ops for source in op.inputs] + branch.outputs
        return branches | {"reads": reads}


def _shape(entry: dict) -> tuple:
    dims = entry.get("type", {}).get("tensor", {}).get("shape", {}).get("dim", ())
    return tuple(dim.get("value") or None for dim in dims)
