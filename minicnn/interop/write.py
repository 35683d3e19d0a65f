"""`write`: a network as a file for other programs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from minicnn.errors import ConfigError
from minicnn.graph import Net
from minicnn.interop.state_dict import export_state_dict
from minicnn.system.files import cannot_write, write_safetensors


def write(net: Net, path: str | os.PathLike, *, classes: list[str] | None = None,
          metadata: dict[str, str] | None = None) -> None:
    """Write a network. .safetensors: the weights, by PyTorch's names and in its layout, those of torchvision where it
    has the net; `load_state_dict(safetensors.torch.load_file(path))` takes them.

    classes: names that are kept in the file.   metadata: more for its metadata.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path}: expected a name that ends in .onnx or .safetensors")
    known = {} if classes is None else {"classes": json.dumps(classes)}
    try:
        write_safetensors(path, export_state_dict(net), {"format": "pt", **known, **(metadata or {})}, checksums=False)
    except OSError as error:
        raise cannot_write(path, error) from error
