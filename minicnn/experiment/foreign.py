"""Weights from other programs: imported, exported, compared, and trained further."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from minicnn.errors import CheckpointError, ConfigError
from minicnn.experiment import own_net
from minicnn.experiment.imported import ASSUMED, is_foreign, save_imported, with_mean
from minicnn.experiment.trained import load_trained
from minicnn.graph import Net
from minicnn.interop.compare import compare_expected, compare_onnx
from minicnn.interop.read import has_graph, read, read_classes, read_weights
from minicnn.interop.state_dict import Builds, export_state_dict
from minicnn.interop.write import write
from minicnn.models.registry import full_name
from minicnn.train.finetune import load_pretrained
from minicnn.train.runs.run_dir import BEST, METRICS

ANY_CLASSES = 2             # of a network that is built to see which layer is its last


def import_file(path: str, out: str, *, graph: str | None = None, model: str | None = None, size: int | None = None,
                classes: int | None = None, output: str | None = None, mean: str | None = None,
                labels: str | None = None) -> Net:
    """Read a foreign file and write it as a checkpoint; returns the network, whose `source` is the report."""
    if os.path.splitext(out)[1] != ".safetensors":
        raise ConfigError(f"{out}: expected the name of the checkpoint to write, OUT.safetensors")
    if os.path.isfile(path) and not is_foreign(path):
        raise ConfigError(f"{path} is a checkpoint of minicnn, which needs no import")
    _check_free(out, path)
    if classes is not None and classes < 1:
        raise ConfigError(f"--classes {classes}: expected at least 1")
    named = _builder(model) if model and own_net.is_own(model) else model
    net = read(path, graph=graph, model=named, size=size, classes=classes, output=output)
    if classes is not None and net.num_classes != classes:
        raise ConfigError(f"--classes {classes}, but {path} has {net.num_classes} outputs; leave the option out")
    if mean:
        with_mean(net, mean)
    save_imported(net, out, read_classes(labels) if labels else None)
    return net


def export_checkpoint(checkpoint: Path, out: str, softmax: bool = False) -> tuple[Net, dict]:
    """Write the network of a checkpoint for other programs; returns it and the metadata of the checkpoint."""
    _check_free(out, checkpoint)
    net, pipeline, meta = load_trained(checkpoint)
    unknown = meta.get("imported", {}).get("preprocess") == ASSUMED
    preprocess, mean = (None, None) if unknown else pipeline.whole_preprocess()
    write(net, out, softmax=softmax, classes=meta["classes"], preprocess=preprocess, mean=mean)
    return net, meta


def _builder(model: str, device: str = "auto") -> Builds:
    """A function of one's own by the number of classes alone. Before that is known, any will do."""
    return lambda classes: own_net.build(model, num_classes=classes or ANY_CLASSES, device=device)


def _check_free(out: str, source: str | os.PathLike) -> None:
    """ConfigError where writing `out` would destroy the file that is read, or a file of a run."""
    if os.path.exists(out) and os.path.samefile(out, source):
        raise ConfigError(f"{out} is the file that is read; write to another name")
    if os.path.exists(os.path.join(os.path.dirname(os.path.abspath(out)), METRICS)):
        raise ConfigError(f"{out} lies in the folder of a run, whose checkpoints it could replace; write to another "
                          "folder")


def need_graph(path: str, check: bool) -> None:
    """ConfigError where --check is asked for and there is no graph that could be run beside minicnn's."""
    if check and os.path.splitext(path)[1] != ".onnx":
        raise ConfigError(f"--check runs the graph of an ONNX file beside minicnn's, and {path} is none; compare "
                          "logits by minicnn import --expect IN OUT")


def compared(net: Net, path: str, check: bool, expect: list[str] | None = None) -> bool:
    """Print a network beside the file that it is from, or was written to; returns whether they agree."""
    agree = True
    if check:
        values = net.source.values if "source" in vars(net) else None
        lines, agree = compare_onnx(net, path, values)
        print("\n".join(lines))
    if expect:
        lines, same = compare_expected(net, *expect)
        print("\n".join(lines))
        agree &= same
    return agree


def load_weights(net: Net, path: str, settings: dict) -> list[str]:
    """Initialise the network of a run with the weights of a checkpoint, or of a foreign file; lines that say how."""
    if not is_foreign(path):
        return [*load_pretrained(net, path, settings["new_head"]), *_expected(settings)]
    model = settings["model"]
    device = "cpu" if net.ops.name == "cuda" else net.ops.spec
    named = _builder(model, device) if own_net.is_own(model) else full_name(model, settings["variant"])
    found = read(path, model=named, device=device)
    theirs = {name: found.ops.to_host(array) for name, array in found.arrays().items()}
    return [*load_pretrained(net, path, settings["new_head"], theirs), *found.source.notes, *_expected(settings)]


def _expected(settings: dict) -> list[str]:
    """What the weights expect of the images, where they bring that along."""
    known = settings["preprocess"]
    if known is None:
        return []
    spread = f", divided by {known['std']}" if known["std"] else ""
    return [f"images as these weights expect them: {known['order'].upper()} in 0..{known['range']} minus "
            f"{known['mean'] or 0}{spread}"]


# ---- comparison
def arrays_of(path: str, other: str) -> dict[str, np.ndarray]:
    """The arrays of a file of weights by name: by PyTorch's names where it, or the file beside it, has only those."""
    if not _has_net(path):
        return {name: tensor.read() for name, tensor in read_weights(path).tensors.items()}
    net = read(path, device="cpu") if is_foreign(path) else load_trained(path, "cpu")[0]
    if not _has_net(other):
        return export_state_dict(net)
    return {name: net.ops.to_host(array) for name, array in net.arrays().items()}


def _has_net(path: str) -> bool:
    return not is_foreign(path) or has_graph(path)


def compare(first: str, second: str) -> tuple[list[str], bool]:
    """Lines that compare two files of weights tensor by tensor, and whether they are equal."""
    for path in (first, second):
        if os.path.isdir(path):
            raise CheckpointError(f"{path} is a folder; name a checkpoint in it, such as {os.path.join(path, BEST)}")
        if not os.path.isfile(path):
            raise CheckpointError(f"{path}: no such file")
    one, two = arrays_of(first, second), arrays_of(second, first)
    lines, equal, width = [], True, max(map(len, [*one, *two]), default=0)
    for name in [*one, *(name for name in two if name not in one)]:
        words = _difference(one.get(name), two.get(name), first, second)
        equal &= words == "equal"
        lines.append(f"{name:{width}s}  {words}")
    differing = sum(not line.endswith("  equal") for line in lines)
    return [*lines, f"{len(lines)} tensors, {f'{differing} differ' if differing else 'all equal'}"], equal


def _difference(one, two, first: str, second: str) -> str:
    if one is None or two is None:
        return f"only in {os.path.basename(second if one is None else first)}"
    if one.shape != two.shape:
        return f"{'x'.join(map(str, one.shape))} and {'x'.join(map(str, two.shape))}"
    if np.array_equal(one, two, equal_nan=True):
        return "equal"
    largest = float(np.abs(np.subtract(one, two, dtype=np.float64)).max())
    scale = float(np.abs(one).max())
    return f"largest difference {largest:.3g}, of the largest value {largest / scale if scale else np.inf:.3g}"
