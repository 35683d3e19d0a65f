"""From the files of each format that has a graph to a network and its report."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from minicnn.data.preprocess import IMAGE, Preprocess
from minicnn.errors import CheckpointError, ConfigError, MinicnnError
from minicnn.graph import Net
from minicnn.interop.formats import cuda_convnet
from minicnn.interop.formats.caffe.files import Blobs, read_prototxt, weights_of
from minicnn.interop.formats.caffe.layers import read_caffe
from minicnn.interop.formats.caffe.schema import NET
from minicnn.interop.formats.columns import graph_of
from minicnn.interop.formats.numpy_pickles import Array, read_pickle
from minicnn.interop.formats.onnx.files import read_onnx
from minicnn.interop.formats.onnx.schema import MODEL
from minicnn.interop.formats.stored import StoredFile
from minicnn.interop.formats.wire import Reader
from minicnn.interop.graph.idioms import recognise
from minicnn.interop.graph.lower import lower
from minicnn.interop.report import Moved, Report
from minicnn.interop.state_dict import Undrawn, with_classes
from minicnn.interop.write import mean_image
from minicnn.models import registry


def _onnx(file: StoredFile, graph, *, model, **options) -> Net:
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
        again = Net.from_description(own["description"], device=net.ops.spec, values=Shared(net))
        if again.input_shape != net.input_shape or not _same_logits(net, again):
            raise CheckpointError("computes something else")
    except (MinicnnError, LookupError, TypeError, ValueError) as error:
        words = " ".join(str(error).split())[:150]
        report.note(f"the description of the network in the metadata was not used: {words}")
        return net
    return again


class Shared(Undrawn):
    """The arrays of a network in the place of initial values; on the CPU they are not copied."""

    def __init__(self, net: Net):
        self.ops, self.arrays = net.ops, net.arrays()

    def get(self, name, default=None):
        return lambda seed, full, shape, dtype: self.ops.to_host(self.arrays[name]).reshape(shape)


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
        with contextlib.suppress(ConfigError, TypeError, ValueError, LookupError):
            found, mean = Preprocess.from_dict(preprocess), None
            if found.mean == IMAGE:
                mean = mean_image(own["mean_image"])
                if mean.shape not in {(side, side, 3) for side in (found.size, found.crop)}:
                    raise ValueError
            report.preprocess, report.preprocess_source, report.mean_image = found, "the file's metadata", mean


def own_metadata(file: StoredFile) -> dict:
    """What minicnn has written into the metadata of an ONNX file."""
    reader = Reader(file.descriptor, file.size)
    return read_onnx(file, reader, reader.message(MODEL)).own


def _caffe(file: StoredFile, graph, *, model, size: int | None, **options) -> Net:
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


# ---- pickles with NumPy arrays
def _pickle(file: StoredFile, graph, *, model, size: int | None, device: str, output: str | None) -> Net:
    root = read_pickle(file)
    if isinstance(root, dict) and "model_state" in root:
        return _cuda_convnet(file, root, graph, size=size, device=device, output=output)
    if isinstance(root, dict) and root and all(isinstance(value, (list, dict)) for value in root.values()):
        return _hwio(file, root, model, size, device)
    raise CheckpointError("a pickle that holds neither a checkpoint of cuda-convnet nor weights by the names of layers")


def _cuda_convnet(file: StoredFile, root: dict, graph, *, size: int | None, **options) -> Net:
    layers = cuda_convnet.layers_of_checkpoint(root)
    size = size or next((layer.number("imgSize") for layer in layers if "imgsize" in layer.settings
                         and layer.type == "conv"), None)
    if graph is not None:
        path = Path(graph)
        params = path.with_name(path.name.replace("layers", "layer-params", 1))
        written = cuda_convnet.read_cfg(path, params if params.is_file() and params != path else None)
        cuda_convnet.take_weights(written, layers)
        layers = written
    report = Report("cuda-convnet", f"{file.path.name}: {len(layers)} layers, {file.size / 1e6:.1f} MB")
    net = lower(graph_of(layers, size, report.notes), report, **options)
    report.preprocess = Preprocess(size=round(net.input_shape[0] * 256 / 224), crop=net.input_shape[0], mean=None)
    report.preprocess_source = "assumed: RGB in 0..255 as in cuda-convnet, and no mean image; give it with --mean FILE"
    net.source = report
    return net


# Networks whose weights are known in this form, all of them Caffe's: a layer, the shape of its weights, BGR means
HWIO = {"alexnet:caffe": ("conv1", (11, 11, 3, 96), CAFFE_MEANS["alexnet"]),
        "squeezenet1_1": ("fire2/squeeze1x1", (1, 1, 64, 16), CAFFE_MEANS["googlenet"])}


def _hwio(file: StoredFile, root: dict, model, size: int | None, device: str) -> Net:
    """Layer -> [weights (R, S, C/G, K) or (in, out), biases]: our own layout, so that nothing changes."""
    arrays = {}
    for layer, value in root.items():
        items = list(value.values()) if isinstance(value, dict) else value
        for local, item in zip(("w", "b"), items, strict=False):
            if not isinstance(item, Array):
                raise CheckpointError(f"layer {layer!r} has no arrays; expected [weights, biases]"[:200])
            arrays[f"{layer}.{local}"] = item.read()
    found = next((name for name, (layer, shape, _) in HWIO.items()
                  if arrays.get(f"{layer}.w", np.zeros(0)).shape == shape), None)
    if model is None and found is None:
        raise ConfigError("has weights without a graph; name their network: --model NAME, or model= in Python")
    about = f"{file.path.name}: {len(arrays)} arrays (R, S, C, K), {file.size / 1e6:.1f} MB, no graph"
    report = Report("pickle", about, model=model if isinstance(model, str) else found or "")
    sized = {"input_size": size} if size else {}
    ours = {name.replace("/", "_"): array for name, array in arrays.items()}
    if isinstance(model, Net):
        net = model.copy(device=device)
    elif callable(model):
        net = with_classes(model, None, lambda net: next((ours[name].shape[-1] for name in net.output_params
                                                          if name in ours), None)).copy(device=device)
    else:
        net = registry.build(model or found, device=device, values=Undrawn(), **sized)
    own = net.arrays()
    wrong = [f"{name} is {ours[name].shape if name in ours else 'missing'} there and {tuple(own[name].shape)} here"
             for name in own if name not in ours or ours[name].shape != tuple(own[name].shape)]
    wrong += [f"{name} is not in the net" for name in ours if name not in own]
    if wrong:
        raise CheckpointError(f"does not fit {net.name!r}: {'; '.join(wrong[:3])}"
                              + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""))
    net.load_arrays(ours, str(file.path))
    report.moved = [Moved(name, array.shape, "as it is", name.replace("/", "_")) for name, array in arrays.items()]
    if found is not None:
        caffe_preprocess(net, {"mean_value": HWIO[found][2]}, report)
        report.preprocess_source = f"Caffe's usual mean of {found.partition(':')[0]}, BGR"
    net.source = report
    return net


GRAPHS = {"onnx": _onnx, "caffe": _caffe, "pickle": _pickle}
