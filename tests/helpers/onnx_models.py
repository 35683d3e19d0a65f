"""Small ONNX models made by the onnx package, and their outputs in onnxruntime, which ours are compared with."""

import numpy as np
import onnx
import onnxruntime
from ml_dtypes import bfloat16  # noqa: F401  (comes with onnx)
from onnx import TensorProto, helper, numpy_helper

from minicnn import interop

node, from_array = helper.make_node, numpy_helper.from_array


def model(nodes: list, shape: tuple, constants: dict | None = None, *, opset: int = 17, ir: int = 8, output="y",
          inputs_too: bool = False, metadata: dict | None = None, producer: str = "test"):
    """A model with the input "x" (shape, "N" for a free batch) and one output, or several.

    inputs_too: the initialisers are listed as inputs as well, as in IR 3.
    """
    constants = {name: np.asarray(array) for name, array in (constants or {}).items()}
    inits = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    if inputs_too:
        inputs += [helper.make_tensor_value_info(init.name, init.data_type, list(init.dims)) for init in inits]
    outputs = [helper.make_empty_tensor_value_info(name) for name in ([output] if isinstance(output, str) else output)]
    for info in outputs:
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    graph = helper.make_graph(nodes, "g", inputs, outputs, inits)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir,
                             producer_name=producer)
    helper.set_model_props(made, metadata or {})
    return made


def save(made, path) -> str:
    onnx.save(made, path)
    return str(path)


def theirs(made, x: np.ndarray, output: str = "y", image: str = "x") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(made.SerializeToString(), options).run([output], {image: x})[0]


def ours(net, x: np.ndarray) -> np.ndarray:
    """For x in the source's layout; maps come back in it."""
    y = net(np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x)
    return y.transpose(0, 3, 1, 2) if y.ndim == 4 else y


def equal(made, path, batch: int = 2, *, shape: tuple = (), until: str = "y", seed: int = 0, scale: float = 3.0):
    """The network of the model, after its outputs were found equal to those of onnxruntime."""
    x = (np.random.default_rng(seed).standard_normal((batch, *shape)) * scale).astype(np.float32)
    net = interop.read(save(made, path), device="reference")
    expected = theirs(made, x, until)
    found = ours(net, x)
    assert found.size == expected.size, (found.shape, expected.shape)
    assert np.abs(found.reshape(expected.shape) - expected).max() < 1e-5 * np.abs(expected).max()
    return net


def kinds(net) -> list[str]:
    return [one.layer.kind() for one in net.nodes if not one.layer.is_loss]


def weights(seed: int, *shape) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
