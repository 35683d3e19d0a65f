"""Networks as ONNX files: valid, equal in onnxruntime, and the same network again when they are read."""

import json

import numpy as np
import pytest

from minicnn import Builder, interop, layers
from minicnn.data.preprocess import CAFFE
from minicnn.errors import ConfigError, ShapeError
from minicnn.interop.compare import compare_onnx
from minicnn.interop.formats.onnx.write import WRITERS
from minicnn.layers import AdaptiveAvgPool2d, Layer, Local2d, Multiply
from minicnn.models import alexnet, cifar_18pct, cifar_paper
from minicnn.models.registry import MODELS, build
from minicnn.system.files import write_safetensors

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


def every_layer():
    """All kinds of layers, with H != W, other sizes on all sides, and windows that hang over the edge."""
    b = Builder((9, 11, 3), "every")
    b.conv("conv1", 8, (3, 2), stride=(2, 1), padding=(1, 0, 2, 1))
    b.batchnorm("bn1", eps=1e-3, momentum=0.2)
    before = b.relu("relu1")
    b.lrn("norm1", n=3, groups=2, alpha=0.01)
    b.lrn_within("norm2", n=3, alpha=0.02, k=1.5)
    pooled = b.maxpool("pool1", 3, stride=2, ceil=True)
    b.avgpool("pool2", 3, stride=2, padding=1, ceil=True, count_pad="padding", input=before)
    b.conv("conv2", 8, (2, 2))
    b.clipped_relu("relu6", 6.0)
    b.add("sum", [pooled, "relu6"])
    joined = b.tanh("tanh")
    b.conv("depthwise", 8, 3, padding=1, groups=8, bias=False)
    b.affine("affine1")
    b.sigmoid("sigmoid")
    b.concat("concat", [joined, "sigmoid"])
    b.leaky_relu("leaky", 0.1)
    b.gelu("gelu")
    b.layer("multiply", Multiply(1.5))
    b.dropout("drop1", 0.3)
    _, H, W, C = b.shape()
    b.layer("local", Local2d((H, W), C, 5, (2, 3), padding=(1, 0)))
    b.avgpool("pool3", 2, stride=1, padding=1, count_pad=True)
    b.avgpool("pool4", 2, stride=1, padding=1, count_pad=False)
    b.flatten("flat")
    b.linear("fc1", 9)
    b.batchnorm("bn2")
    b.affine("affine2", bias=False)
    b.dropout("drop2", 0.4, inverted=True)
    b.linear("fc2", 4, bias=False)
    b.loss(label_smoothing=0.1)
    return b.net(device="reference")


def pixelwise():
    b = Builder((9, 11, 3), "pixelwise")
    b.conv("conv", 6, 3, stride=2, padding=1, ceil=True)
    b.linear("at_each_pixel", 5)
    b.relu("relu")
    b.global_avgpool("mean")
    b.linear("fc", 4)
    b.loss()
    return b.net(device="reference")


def pyramid():
    """Flattened maps of two sizes, joined and normalised before a fully connected layer; channels of zeros."""
    b = Builder((9, 11, 3), "pyramid")
    b.conv("conv1", 4, 3)
    start = b.subsample("shortcut", 7, (2, 3), before=1)
    b.layer("adaptive", AdaptiveAvgPool2d((2, 3)))
    b.flatten("flat1")
    b.affine("affine1")
    b.maxpool("pool", 2, stride=2, input=start)
    b.flatten("flat2")
    b.concat("rows", ["affine1", "flat2"])
    b.batchnorm("bn")
    b.relu("relu")
    b.linear("fc", 3)
    b.loss()
    return b.net(device="reference")


SMALL = {"device": "reference", "input_size": 99, "fc": 16}
NETS = {"every layer": every_layer, "pixelwise": pixelwise, "pyramid": pyramid,
        "cifar_paper": lambda: cifar_paper(device="reference", input_size=12),
        "cifar_18pct": lambda: cifar_18pct(device="reference", activation="tanh", input_size=12),
        **{name: lambda name=name: alexnet(name, 3, **SMALL, kernels=(8, 12, 8, 8, 12)) for name in
           ("paper", "authors", "caffe", "torchvision")}}        # 99: 2 x 2 maps before fc6, whose order counts


def filled(net):
    """With weights that let all values count."""
    rng = np.random.default_rng(0)
    for param in net.params.values():
        shape = param.data.shape
        fan = int(np.prod(shape[:3] if len(shape) == 6 else shape[:-1]))
        param.data[...] = rng.normal(0, (2 / fan) ** 0.5, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
    for array in net.state.values():
        array[...] = rng.uniform(0.5, 1.5, array.shape)
    return net


@pytest.mark.parametrize("name", NETS)
def test_there_and_back(tmp_path, name):
    made = there_and_back(filled(NETS[name]()), tmp_path / "n.onnx")
    assert made.ir_version == 8 and made.opset_import[0].version == 17
    assert name in ("every layer", "cifar_paper") or "Transpose" not in {one.op_type for one in made.graph.node}


def there_and_back(net, path, tolerance: float = 1e-5):
    """The file of a network, after it was found valid, equal in onnxruntime, and the same network when it is read."""
    interop.write(net, path)
    made = onnx.load(path)
    onnx.checker.check_model(made, full_check=True)
    x = np.random.default_rng(1).uniform(-100, 100, (2, *net.input_shape)).astype(np.float32)
    y = net(x)
    theirs = ort.InferenceSession(path).run(None, {"image": x.transpose(0, 3, 1, 2)})[0]
    assert np.abs(theirs - y).max() < tolerance * np.abs(y).max()
    again = interop.read(path, device=net.ops.spec)
    assert again.description() == net.description()
    assert all(np.array_equal(again.arrays()[key], array) for key, array in net.arrays().items())
    return made


def test_every_kind_of_layer_is_written():
    ours = {kind.kind() for kind in vars(layers).values() if isinstance(kind, type) and issubclass(kind, Layer)}
    assert set(WRITERS) == ours - {"Layer", "SoftmaxCrossEntropy"}
    written = {node.layer.kind() for make in (every_layer, pixelwise, pyramid) for node in make().nodes}
    assert written == set(WRITERS) | {"SoftmaxCrossEntropy"}


# Small, by the first of a model's knobs that are here
KNOBS = {"alexnet": {"input_size": 99, "fc": 16, "kernels": (8, 12, 8, 8, 12)}, "zfnet": {"fc": (16, 16)},
         "vgg": {"input_size": 64, "fc": 16}, "googlenet": {"input_size": 65, "width": 0.125, "aux": False},
         "squeezenet1_1": {"input_size": 97, "width": 0.25}, "mobilenet_v2": {"input_size": 65, "width": 0.25},
         "airbench93": {"widths": (8, 16, 16)}, "airbench94": {"widths": (8, 16, 16)}}
NARROW = {224: {"input_size": 65, "widths": (8, 12, 12, 16)}, 32: {"widths": (4, 8, 12)}}


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{model}:{variant}".rstrip(":") for model, entry in MODELS.items()
                                  for variant in entry.variants if model != "resnet1202"])     # values overflow
def test_every_model_there_and_back(tmp_path, name):
    model = name.partition(":")[0]
    knobs = KNOBS.get(model, {} if model.startswith("cifar") else NARROW[32 if MODELS[model].image_size == 32 else 224])
    net = filled(build(name, num_classes=5, device="cpu", **knobs))
    there_and_back(net, tmp_path / "n.onnx", 1e-4)


def test_the_graph_alone_is_the_same_network(tmp_path):
    """Without the description in the metadata; and with one of another network, which is not used."""
    net, path = filled(every_layer()), tmp_path / "n.onnx"
    interop.write(net, path)
    made = onnx.load(path)
    x = np.random.default_rng(1).uniform(-100, 100, (2, *net.input_shape)).astype(np.float32)
    for own in ({}, {"description": {**net.description(), "nodes": [
            {**node, "options": {**node["options"], "k": 9.0}} if node.get("kind") == "LRN" else node
            for node in net.description()["nodes"]]}}):
        onnx.helper.set_model_props(made, {"minicnn": json.dumps(own)})
        onnx.save(made, path)
        again = interop.read(path, device="reference")
        assert np.abs(again(x) - net(x)).max() < 1e-5 * np.abs(net(x)).max()
        assert any("was not used: computes something else" in note for note in again.source.notes) == bool(own)


def test_classes_and_preprocessing_travel_along(tmp_path):
    net = pixelwise()
    interop.write(net, tmp_path / "n.onnx", softmax=True, classes=list("abcd"), preprocess=CAFFE)
    made = onnx.load(tmp_path / "n.onnx")
    props = {one.key: one.value for one in made.metadata_props}
    assert props["Image.BitmapPixelFormat"] == "Bgr8" and made.graph.output[0].name == "probabilities"
    x = np.ones((1, 3, 9, 11), np.float32)
    assert abs(ort.InferenceSession(tmp_path / "n.onnx").run(None, {"image": x})[0].sum() - 1) < 1e-6
    again = interop.read(tmp_path / "n.onnx", device="reference")
    assert again.source.classes == list("abcd") and again.source.preprocess == CAFFE


class Cube(Layer):
    """A layer of one's own."""

    def plan(self, in_shapes, dtype, ops):
        from minicnn.layers import LayerPlan
        return LayerPlan(tuple(in_shapes[0]))


def test_what_cannot_be_written_is_refused(tmp_path):
    b = Builder((4, 4, 3))
    b.layer("cube", Cube())
    with pytest.raises(ShapeError, match="'cube' is a .*Cube"):
        interop.write(b.net(device="reference"), tmp_path / "n.onnx")
    with pytest.raises(ConfigError, match=r"n.pb: expected a name that ends in .onnx or .safetensors"):
        interop.write(pixelwise(), tmp_path / "n.pb")
    with pytest.raises(ShapeError, match="locally connected, which PyTorch does not have"):
        interop.write(every_layer(), tmp_path / "n.safetensors")
    assert not list(tmp_path.iterdir())


def test_layers_are_compared_one_by_one(tmp_path):
    """The first layer that differs is named, with what usually is the cause."""
    net, path = filled(every_layer()), tmp_path / "n.onnx"
    interop.write(net, path)
    read = interop.read(path, device="reference")
    lines, same = compare_onnx(read, path, read.source.values)
    count = sum(node.layer.kind() not in ("Flatten", "SoftmaxCrossEntropy")
                for node in net.nodes)
    assert same and len(lines) == count + 2 and lines[-1].startswith(f"agrees    in all {count} nodes, to ")
    read["norm1"].k = 3.0
    lines, same = compare_onnx(read, path, read.source.values)
    assert not same and lines[-1].startswith("differs   first in 'norm1', LRN: alpha divided by n or not")
    lines, same = compare_onnx(net, path)                   # by our own names, as after an export
    assert same


def test_a_checkpoint_is_no_foreign_file(tmp_path):
    net = pixelwise()
    net.save(tmp_path / "n.safetensors")
    from minicnn.errors import CheckpointError
    with pytest.raises(CheckpointError, match="needs no import"):
        interop.read(tmp_path / "n.safetensors", model=net)
    write_safetensors(tmp_path / "m.safetensors", {"a": np.zeros(1, np.int64)}, {}, checksums=False)
    with pytest.raises(CheckpointError, match="missing"):
        interop.read(tmp_path / "m.safetensors", model=net)
