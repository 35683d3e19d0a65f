"""A network beside its source, layer by layer, for the same noise; logits are compared, never probabilities.

The source of an ONNX file runs in onnxruntime (the extra `onnx`). Files without a graph have nothing that could run;
their outputs for some images can be given.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from minicnn.errors import CheckpointError, ConfigError
from minicnn.interop.formats.wire import encoded, field

LIMIT = 1e-4                    # of the largest value of a layer
HINTS = {"Conv2d": "if it is the first layer: order of the colours, or scale of the pixels; else groups or padding",
         "MaxPool2d": "sizes that are rounded up or down, or padding on one side",
         "AvgPool2d": "what the divisor counts at the edge", "LRN": "alpha divided by n or not, and k",
         "BatchNorm2d": "eps, or statistics that were not divided by Caffe's factor",
         "Linear": "if it follows a Flatten: the order of the features (C, H, W)"}


def compare_onnx(net, path: str | os.PathLike, values: dict | None = None) -> tuple[list[str], bool]:
    """Lines that compare `net` with an ONNX file in onnxruntime, and whether all layers agree.

    values: our node -> (value of the file, which logical axis each of ours is, the source's place of each feature or
    None); by default those of an export, which has our names. ConfigError where onnxruntime is not installed.
    """
    values = values or {name: (name, None, None) for name in [*net.inputs, *(node.name for node in net.nodes)]}
    kinds = {node.name: node.layer.kind() for node in net.nodes if not node.layer.is_loss}
    nodes = [name for name, kind in kinds.items() if kind != "Flatten" and name in values]
    session, wanted = _session(path, [values[name][0] for name in nodes])
    image = next(iter(net.inputs))
    batch = session.get_inputs()[0].shape[0]
    batch = batch if isinstance(batch, int) and batch > 0 else 2        # 2, so that a batch that is baked in shows
    x = np.random.default_rng(0).uniform(0, 255, (batch, *net.input_shape)).astype(np.float32)
    theirs = dict(zip(wanted, session.run(wanted, {session.get_inputs()[0].name: _as_theirs(x, values[image][1])}),
                      strict=True))
    ours = net.trace(x, keep=nodes)
    found = [_difference(name, net.ops.to_host(ours[name]), theirs[values[name][0]], values[name]) for name in nodes]
    lines = [f"layers    {'node':24s}  {'largest difference':>18s}  of the largest value    (onnxruntime, noise, batch "
             f"{batch})"]
    lines += [f"          {name:24s}  {largest:18.3g}  {share:.2g}" for name, largest, share in found]
    wrong = next((name for name, _, share in found if not share <= LIMIT), None)
    if wrong is not None:
        lines.append(f"differs   first in {wrong!r}, {kinds[wrong]}: {HINTS.get(kinds[wrong], 'see the layer')}")
    else:
        largest = max((share for *_, share in found), default=0)
        lines.append(f"agrees    in all {len(found)} nodes, to {largest:.2g} of the largest value")
    return lines, wrong is None


def _session(path, names: list[str]):
    """The file in onnxruntime with these values as further outputs; the outputs that it has."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("to compare with the source, install onnxruntime: pip install minicnn[onnx]") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path",
                                     str(Path(path).resolve().parent))
    data = Path(path).read_bytes()
    try:
        first = onnxruntime.InferenceSession(data, options)
        known = {output.name for output in first.get_outputs()} | {one.name for one in first.get_inputs()}
        more = b"".join(field(12, field(1, name)) for name in dict.fromkeys(names) if name not in known)
        # Of a message that comes in two parts, protocol buffers join the fields: these are appended to the graph.
        session = onnxruntime.InferenceSession(data + encoded(7 << 3 | 2) + encoded(len(more)) + more, options)
    except Exception as error:                              # of onnxruntime's own kinds
        raise CheckpointError(f"{path}: onnxruntime cannot run it: {' '.join(str(error).split())[:200]}") from error
    return session, list(dict.fromkeys(names))


def _as_theirs(x: np.ndarray, order) -> np.ndarray:
    """Images in the source's axes. order: None: channels first."""
    order = order or ((0, 2, 3, 1) if x.ndim == 4 else tuple(range(x.ndim)))
    return np.ascontiguousarray(x.transpose(np.argsort(order)))


def _difference(name: str, ours: np.ndarray, theirs: np.ndarray, value) -> tuple[str, float, float]:
    """(node, largest difference, its share of the largest value)."""
    _, order, rows = value
    order = order or ((0, 2, 3, 1) if theirs.ndim == 4 else tuple(range(theirs.ndim)))
    if theirs.ndim == len(order):
        theirs = theirs.transpose(order)
    if rows is not None:
        theirs = theirs[:, rows]
    if theirs.size != ours.size:
        return name, np.inf, np.inf
    largest = float(np.abs(ours.reshape(theirs.shape) - theirs).max())
    return name, largest, largest / max(float(np.abs(theirs).max()), 1e-30)


def compare_expected(net, images: str | os.PathLike, logits: str | os.PathLike) -> tuple[list[str], bool]:
    """A line that compares the logits for images (N, C, H, W) of a .npy file with those of another one."""
    try:
        x, expected = (np.load(path, allow_pickle=False).astype(np.float32) for path in (images, logits))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--expect: cannot be read as .npy: {error}") from error
    if x.ndim != 4 or tuple(x.transpose(0, 2, 3, 1).shape[1:]) != net.input_shape:
        raise ConfigError(f"--expect: {images} has the shape {x.shape}; expected (N, C, H, W) of images "
                          f"{' x '.join(map(str, net.input_shape))}")
    ours = net.ops.to_host(net(np.ascontiguousarray(x.transpose(0, 2, 3, 1))))
    if ours.shape != expected.shape:
        raise ConfigError(f"--expect: {logits} has the shape {expected.shape}, the logits {ours.shape}")
    largest = float(np.abs(ours - expected).max())
    share = largest / max(float(np.abs(expected).max()), 1e-30)
    return [f"expected  largest difference of the logits {largest:.3g}, of the largest {share:.2g}"], share <= LIMIT
