"""Weights by name, without a graph: from a state dict into a network that is named, or known from the names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from minicnn.data.preprocess import TORCHVISION, Preprocess
from minicnn.errors import CheckpointError, ConfigError, ShapeError, expected
from minicnn.graph import Net
from minicnn.interop import layout
from minicnn.interop.formats.stored import InMemory, Stored
from minicnn.interop.formats.torch_files import TorchFile, View
from minicnn.interop.formats.unpickle import Foreign
from minicnn.interop.layout import Rows, Turn, fill, read_blocks, row_order
from minicnn.interop.report import Moved, Report
from minicnn.interop.torch_names import ELSEWHERE, guess, torch_names
from minicnn.models import registry
from minicnn.param import layer_of
from minicnn.weights import STATE

WRAPPED = ("state_dict", "model_state_dict", "model", "net", "params", "weights")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")
Tensor = Stored | InMemory
Builds = Callable[[int | None], Net]        # the number of classes (None: its own) -> a network


@dataclass
class StateDict:
    """Tensors by PyTorch's names.   notes: how the names were found.   counters: dropped num_batches_tracked."""

    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    counters: int = 0
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}


class Undrawn(Mapping):
    """Initial values that are not drawn, since they are overwritten at once: for any name, an array of no value."""

    def get(self, name, default=None):
        return lambda seed, name, shape, dtype: np.empty(shape, dtype)

    def __getitem__(self, name):
        return self.get(name)

    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0


def of_torch_file(found: TorchFile) -> StateDict:
    """The state dict in a pickled object: itself, or the first of its entries that holds tensors."""
    root, notes = found.root, []
    if isinstance(root, Foreign):
        raise CheckpointError(f"a pickled {root.name[:60]}, not its weights; save model.state_dict() instead")
    if isinstance(root, dict):
        for key in WRAPPED:
            inner = root.get(key)
            if isinstance(inner, dict) and any(isinstance(value, View) for value in inner.values()):
                root, notes = inner, [f"the weights are its entry {key!r}"]
                break
            if isinstance(inner, Foreign) and not any(isinstance(value, View) for value in root.values()):
                raise CheckpointError(f"its entry {key!r} is a pickled {inner.name[:60]}, not weights; save "
                                      "model.state_dict() instead")
    if not isinstance(root, dict) or not any(isinstance(value, View) for value in root.values()):
        raise CheckpointError("holds no weights by name; expected what torch.save(model.state_dict(), path) writes")
    views = {key: value for key, value in root.items() if isinstance(key, str) and isinstance(value, View)}
    return cleaned({name: found.stored(name, view) for name, view in views.items()}, notes)


def cleaned(tensors: dict[str, Tensor], notes: list[str]) -> StateDict:
    """Without counters, and without a prefix that all names share."""
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    tensors = {name: tensor for name, tensor in tensors.items() if name not in set(counters)}
    while stripped := next((p for p in PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(stripped): tensor for name, tensor in tensors.items()}
        notes = [*notes, f"the prefix {stripped!r} of every name was left out"]
    return StateDict(tensors, notes, len(counters))


# ---- the network
def net_for(state: StateDict, model: str | Net | Builds | None, size: int | None, device: str, report: Report,
            classes: int | None = None) -> Net:
    """The network that the weights are of, without its weights, with as many classes as they have.

    classes: where that is known.   ConfigError where the network must be named.
    """
    def fitting(build: Builds) -> Net:
        return with_classes(build, classes, lambda net: _classes_of(net, state))

    if isinstance(model, Net):
        return model.copy(device=device)
    if callable(model):
        return fitting(model).copy(device=device)
    found = guess(state.shapes)
    if model is None and found is None:
        raise ConfigError("has weights without a graph, and names that are not torchvision's; name their network: "
                          "--model NAME (minicnn models lists them), or model= in Python")
    name, options = (model, {}) if found is None else (model or found[0], found[1])
    if found is not None and name in ELSEWHERE:
        report.note(f"{name} was taken as {ELSEWHERE[name]}, since the names are torchvision's")
        name = ELSEWHERE[name]
    if found is not None and registry.find(name) != registry.find(found[0]):
        options = {}
    sized = {"input_size": size} if size else {}
    report.model = name
    return fitting(lambda num_classes: registry.build(name, device=device, values=Undrawn(), **sized, **{
        **options, "num_classes": num_classes or options.get("num_classes")}))


def with_classes(build: Builds, classes: int | None, of_weights: Callable[[Net], int | None]) -> Net:
    """build(classes); where that is not known, as many as of_weights(net) finds for a network that was built first."""
    net = build(classes)
    found = classes or of_weights(net) or net.num_classes
    return net if found == net.num_classes else build(found)


def _classes_of(net: Net, state: StateDict) -> int | None:
    """The outputs of the layer that is the last of this network, in the weights; None where they have no such layer."""
    names = torch_names(net)
    shapes = [state.shapes.get(names[ours]) for ours in net.output_params]
    return next((shape[0] for shape in shapes if shape), None)


@dataclass(frozen=True)
class Place:
    """Where a tensor goes: our array, and how its axes change."""

    tensor: Tensor
    target: str
    turn: Turn | Rows


def load_state_dict(net: Net, state: StateDict, report: Report, names: Mapping[str, str] | None = None) -> None:
    """Fill the network. CheckpointError, which names what is missing, extra or misshapen, unless all fits.

    names: our array -> theirs; PyTorch's names of the net by default. Nothing is changed where anything does not fit.
    """
    places = _places(net, state, names or torch_names(net))
    report.note(f"ignored: {state.counters} num_batches_tracked") if state.counters else None
    for note in state.notes:
        report.note(note)
    arrays, lost = net.arrays(), 0
    for place in places:
        lost += _write(net, arrays[place.target], place)
        report.moved.append(Moved(place.tensor.name, place.tensor.shape, _words(place), place.target))
    if lost:
        report.note(f"{lost:,} elements are not finite")


def _places(net: Net, state: StateDict, names: Mapping[str, str]) -> list[Place]:
    blocks, arrays = read_blocks(net), net.arrays()
    missing = [theirs for theirs in names.values() if theirs not in state.tensors]
    extra = sorted(set(state.tensors) - set(names.values()))
    places, wrong = [], []
    for ours, theirs in names.items():
        if theirs in state.tensors:
            tensor = state.tensors[theirs]
            turn = turn_of(net, ours, blocks.get(layer_of(ours.removeprefix(STATE))))
            if turn is None or tensor.shape != turn[0] or not tensor.is_float:
                wrong.append(f"{theirs} is {_by(tensor.shape)} there and {_by(turn[0] if turn else ())} here")
            else:
                places.append(Place(tensor, ours, turn[1]))
    if missing or extra or wrong:
        raise CheckpointError(_misfit(net, state, missing, extra, wrong))
    assert len(places) == len(arrays)
    return places


def turn_of(net: Net, name: str, blocks=None) -> tuple[tuple[int, ...], Turn | Rows] | None:
    """(their shape, how it becomes ours) of the array of this name of ours.   blocks: flattened maps that it reads."""
    own = name.removeprefix(STATE)
    layer, local = net[layer_of(own)], own.rpartition(".")[2]
    shape = tuple(net.arrays()[name].shape)
    if layer.kind() in ("BatchNorm2d", "Affine") and blocks:
        return shape, Rows(tuple(row_order(blocks).tolist()), "CHW -> HWC")
    if local != "w" or len(shape) == 1:
        return shape, layout.same(shape)
    if len(shape) == 4:
        R, S, C, K = shape
        return (K, C, R, S), layout.conv((K, C, R, S))
    if len(shape) == 2:
        theirs = shape[::-1]
        if blocks and len(blocks) > 1:
            words = " and ".join(f"({','.join(map(str, block))})" for block in blocks)
            return theirs, Rows(tuple(row_order(blocks).tolist()), f"rows {words} CHW -> HWC, transposed")
        return theirs, layout.linear(theirs, blocks[0] if blocks else None)
    return (shape, layout.same(shape)) if layer.kind() == "Local2d" else None


def _misfit(net: Net, state: StateDict, missing: list[str], extra: list[str], wrong: list[str]) -> str:
    """One line: what does not fit, and which network would."""
    parts = [f"{len(names)} {what}: {_few(names)}" for what, names in
             (("missing", missing), ("not in the net", extra), ("of another shape", wrong)) if names]
    line = f"does not fit {net.name!r}: {'; '.join(parts)}"
    found = guess(state.shapes)
    if found is not None:
        classes = found[1].get("num_classes")
        line += f". Its names and shapes are those of {found[0]}" + (f" with {classes:,} classes" if classes else "")
    elif missing and extra:
        line += f"; {expected(missing[0], extra)}"
    return line


def _write(net: Net, target, place: Place) -> int:
    """Fill an array of the network; returns the number of elements that are not finite."""
    if isinstance(target, np.ndarray) and target.flags.c_contiguous:
        return fill(target, place.tensor, place.turn)
    host = np.empty(target.shape, np.float32)
    lost = fill(host, place.tensor, place.turn)
    target[...] = net.ops.from_host(host.astype(net.dtype, copy=False))
    return lost


def _words(place: Place) -> str:
    kind = "" if place.tensor.dtype == "F32" else f"{place.tensor.dtype} -> F32"
    return ", ".join(filter(None, (place.turn.words, kind)))


def export_state_dict(net: Net) -> dict[str, np.ndarray]:
    """PyTorch's name -> array in PyTorch's layout. ShapeError for a layer that PyTorch does not have."""
    blocks, found = read_blocks(net), {}
    arrays = {name: net.ops.to_host(array) for name, array in net.arrays().items()}
    for ours, theirs in torch_names(net).items():
        layer = layer_of(ours.removeprefix(STATE))
        if net[layer].kind() == "Local2d":
            raise ShapeError(f"layer {layer!r} is locally connected, which PyTorch does not have; export the network "
                             "as ONNX")
        shape, turn = turn_of(net, ours, blocks.get(layer))
        found[theirs] = turn.back(arrays[ours], shape).astype(np.float32, copy=False)
    return found


def torchvision_preprocess(model: str, crop: int) -> tuple[Preprocess, str]:
    """What torchvision's transforms do, for its weights of this model, and a word on where it is from."""
    known = replace(TORCHVISION, crop=crop, size=max(round(crop * 256 / 224), crop))
    source = "torchvision's transforms, by the names of the weights"
    if model == "googlenet:torchvision":
        return replace(known, mean=(0.5,) * 3, std=(0.5,) * 3), \
            f"{source}, and its GoogLeNet's own transform_input: in all (x - 0.5) / 0.5"
    return known, source


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _by(shape) -> str:
    return "x".join(map(str, shape)) if prod(shape) != 1 or shape else "another rank"
