"""Memory that reading takes: the network, and at most 1.2 times its largest array."""

import tracemalloc

import numpy as np
import pytest

from minicnn import Builder, interop
from minicnn.interop.state_dict import export_state_dict
from tests.helpers import caffe_bytes as cb
from tests.helpers import torch_pickle as tp

SLACK = 300_000         # bytes that do not grow with the arrays


def net():
    """8.4 MB in one array, and 4.2 MB in another: less than 1.2 of the first, but not beside another copy of it."""
    b = Builder((8, 8, 16), "large")
    b.conv("conv1", 16, 3, padding=1)
    b.flatten("flat")
    for k, outputs in enumerate((2048, 512, 4), 2):
        b.linear(f"fc{k}", outputs)
    b.loss()
    return b.net(device="reference")


def save_caffe(path, arrays: dict) -> None:
    of = lambda name: [cb.blob(arrays[f"{name}.{kind}"]) for kind in ("weight", "bias")]    # noqa: E731
    layers = [{"name": "data", "type": "Input", "top": ["x"], "input_param": {"shape": [{"dim": [1, 16, 8, 8]}]}},
              {"name": "conv1", "type": "Convolution", "bottom": ["x"], "top": ["x"], "blobs": of("features.0"),
               "convolution_param": {"num_output": 16, "kernel_size": [3], "pad": [1]}}]
    for k, outputs in enumerate((2048, 512, 4)):
        layers.append({"name": f"fc{k + 2}", "type": "InnerProduct", "bottom": ["x"], "top": ["x"],
                       "inner_product_param": {"num_output": outputs}, "blobs": of(f"classifier.{k}")})
    path.write_bytes(cb.net(layers))


SAVE = {"pth": lambda path, one, arrays: tp.save_zip(path, {
            name: tp.tensor(array, str(k)) for k, (name, array) in enumerate(arrays.items())}),
        "safetensors": lambda path, one, arrays: interop.write(one, path),
        "onnx": lambda path, one, arrays: interop.write(one, path),
        "caffemodel": lambda path, one, arrays: save_caffe(path, arrays)}


@pytest.mark.parametrize("kind", SAVE)
def test_no_array_is_in_memory_twice(tmp_path, kind):
    one = net()
    arrays, path = export_state_dict(one), tmp_path / f"net.{kind}"
    SAVE[kind](path, one, arrays)
    model = one if kind in ("pth", "safetensors") else None
    interop.read(path, model=model, device="reference")                 # what is imported only now counts not
    tracemalloc.start()
    try:
        again = interop.read(path, model=model, device="reference")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sizes = [array.nbytes for array in again.arrays().values()]
    assert sum(sizes) < peak < sum(sizes) + 1.2 * max(sizes) + SLACK
    assert all(np.array_equal(array, one.arrays()[name]) for name, array in again.arrays().items())
