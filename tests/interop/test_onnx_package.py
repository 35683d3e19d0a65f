"""What the onnx package brings along: cases of single operators, and nine networks of the model zoo without weights."""

import importlib
import warnings
from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import pytest

from minicnn import interop
from minicnn.errors import CheckpointError, MinicnnError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.helpers import onnx_models as om  # noqa: E402

MODULES = {"Conv": "conv", "MaxPool": "maxpool", "AveragePool": "averagepool", "GlobalAveragePool": "globalaveragepool",
           "LRN": "lrn", "Gemm": "gemm", "BatchNormalization": "batch_normalization", "Relu": "relu"}


def cases_of(op: str) -> list:
    """The package's cases of this operator alone, which it builds in memory."""
    cases = importlib.import_module("onnx.backend.test.case.node")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                     # NumPy's, of other cases in the module
        importlib.import_module(f"onnx.backend.test.case.node.{MODULES[op]}")
    return [case for case in cases._NodeTestCases if [node.op_type for node in case.model.graph.node] == [op]]


def as_a_network(case):
    """(model whose inputs but the first are initialisers, that input, the outputs it should have)."""
    (inputs, outputs), made = case.data_sets[0], onnx.ModelProto()
    made.CopyFrom(case.model)
    names = [one.name for one in made.graph.input]
    made.graph.initializer.extend(om.from_array(np.asarray(array), name)
                                  for name, array in list(zip(names, inputs, strict=True))[1:])
    return made, names[0], np.asarray(inputs[0]), np.asarray(outputs[0])


def outside(made, x: np.ndarray) -> str:
    """Why a case is of no layer here; "" for what must be read."""
    (node,), inits = made.graph.node, {one.name: one.dims for one in made.graph.initializer}
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    if "Pool" in node.op_type and x.ndim != 4:
        return "1-D and 3-D"
    if "Pool" in node.op_type and set(attributes.get("dilations", [1])) != {1}:
        return "dilated"
    if attributes.get("transA"):
        return "transposes the features"
    if node.op_type == "Gemm" and prod(inits.get(node.input[2], [1])[:-1] if len(node.input) > 2 else [1]) > 1:
        return "adds an array"
    return ""


@pytest.mark.parametrize("op", MODULES)
def test_cases_of_single_operators(tmp_path, op):
    """Each case is equal, or of a layer that is not here, and then refused."""
    found = Counter()
    for case in cases_of(op):
        made, name, x, y = as_a_network(case)
        why, path = outside(made, x), om.save(made, tmp_path / "case.onnx")
        if why:
            with pytest.raises(CheckpointError, match=why):
                interop.read(path, device="reference")
        else:
            _check(case.name, interop.read(path, output=made.graph.output[0].name, device="reference"), x, y)
        found[f"refused, {why}" if why else "equal"] += 1
    print(op, dict(found))
    assert found["equal"] > 0


def _check(name: str, net, x: np.ndarray, y: np.ndarray) -> None:
    """The outputs are those that the package says; or, where it computes as in training, the file says why not."""
    ours = om.ours(net, x.astype(np.float32)).reshape(y.shape)
    if "training_mode" in name:
        assert any("training mode" in note for note in net.source.notes), name
        return
    digits = 1e-3 if "starts_on_pad" in name else 1e-5      # it has its values to four decimal places
    assert np.abs(ours - y).max() <= digits * np.abs(y).max(), name


# ---- networks
LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def with_weights(path: Path):
    """The network with seeded weights in the place of its nodes that make constants."""
    made, rng = onnx.load(path), np.random.default_rng(0)
    graph = made.graph
    shapes = {init.name: onnx.numpy_helper.to_array(init).tolist() for init in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape"]:
        shape = shapes[node.input[0]]
        values = (rng.normal(0, (2 / prod(shape[1:])) ** 0.5, shape) if len(shape) > 1 else
                  0.5 + np.abs(rng.normal(0, 0.1, shape)))
        graph.initializer.append(om.from_array(values.astype(np.float32), node.output[0]))
        graph.node.remove(node)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50",
                                  "squeezenet", "vgg19", "zfnet512"])
def test_networks_of_the_model_zoo(tmp_path, name):
    """The values before the softmax, which would hide differences."""
    made = with_weights(LIGHT / f"light_{name}.onnx")
    net = interop.read(om.save(made, tmp_path / "net.onnx"), device="cpu")
    (image,) = [one for one in made.graph.input if one.name not in {init.name for init in made.graph.initializer}]
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    x = np.random.default_rng(1).uniform(-100, 100, shape).astype(np.float32)
    logits = net.source.values[net.output][0]
    if logits not in {one.name for one in made.graph.output}:
        made.graph.output.append(onnx.helper.make_empty_tensor_value_info(logits))
    theirs = om.theirs(made, x, logits, image.name)
    assert np.abs(om.ours(net, x).reshape(theirs.shape) - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.slow
def test_a_shuffle_of_channels_is_refused_by_name(tmp_path):
    made = with_weights(LIGHT / "light_shufflenet.onnx")
    with pytest.raises(MinicnnError, match=r"Reshape 'n7': makes 1x4x28x56x56 of it .*known are Flatten"):
        interop.read(om.save(made, tmp_path / "net.onnx"), device="cpu")
