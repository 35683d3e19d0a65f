"""`write`: a network as a file for other programs."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import numpy as np

from minicnn.data.preprocess import Preprocess
from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.interop.formats.onnx.write import onnx_bytes
from minicnn.interop.state_dict import export_state_dict
from minicnn.system.files import cannot_write, write_bytes, write_safetensors


def write(net: Net, path: str | os.PathLike, *, softmax: bool = False, classes: list[str] | None = None,
          preprocess: Preprocess | None = None, mean: np.ndarray | None = None) -> None:
    """Write a network for other programs, atomically; the ending of the name decides the format.

    .onnx           graph and weights, opset 17: input (N, C, H, W), output the logits, or probabilities if `softmax`
    .safetensors    weights by PyTorch's names and in its layout, those of torchvision where it has the net;
                    `load_state_dict(safetensors.torch.load_file(path))` takes them

    classes, preprocess: kept in the metadata.   mean: the mean image that `preprocess` names, (H, W, 3), RGB, likewise.
    ShapeError for a layer that the format cannot express.
    """
    path, image = Path(path), None if mean is None else _mean_as_text(mean)
    known = None if preprocess is None else preprocess.to_dict()
    try:
        if path.suffix == ".onnx":
            write_bytes(path, onnx_bytes(net, softmax=softmax, classes=classes, preprocess=known,
                                         mean_image=image))
        elif path.suffix == ".safetensors":
            metadata = {"format": "pt", "classes": json.dumps(classes), "preprocess": json.dumps(known),
                        "mean_image": json.dumps(image)}
            write_safetensors(path, export_state_dict(net), {k: v for k, v in metadata.items() if v != "null"},
                              checksums=False)
        else:
            raise ConfigError(f"{path}: expected a name that ends in .onnx or .safetensors")
    except OSError as error:
        raise cannot_write(path, error) from error


def _mean_as_text(mean: np.ndarray) -> dict:
    """A mean image as JSON can hold it: "side", and float32, little-endian, in base64."""
    return {"side": mean.shape[0], "float32": base64.b64encode(np.ascontiguousarray(mean, "<f4")).decode()}


def mean_image(found: dict) -> np.ndarray:
    """The inverse, (side, side, 3), RGB. ValueError, TypeError or LookupError where it is none."""
    values = np.frombuffer(base64.b64decode(found["float32"], validate=True), "<f4")
    if not np.isfinite(values).all():
        raise ValueError("a mean image that is not finite")
    return values.reshape(found["side"], found["side"], 3).astype(np.float32)
