"""minicnn: a convolutional network framework written from scratch, starting with AlexNet.

The packages, in the order of the data flow: minicnn.data, minicnn.graph (Net), minicnn.layers, minicnn.backend,
minicnn.kernels; minicnn.train runs the training loop. Importing this package loads neither Numba nor any GPU library;
they are loaded when a network is made.
"""

from pathlib import Path

from minicnn import layers, models
from minicnn.backend.select import get_ops
from minicnn.builder import Builder
from minicnn.errors import MinicnnError
from minicnn.graph import Net
from minicnn.param import Param

__version__ = "0.1.0"

if not (Path(__file__).parent / "kernels").is_dir():        # a checkout: kernels/ lies beside this folder
    __path__.append(str(Path(__file__).parents[1]))

__all__ = ["Builder", "MinicnnError", "Net", "Param", "get_ops", "layers", "models"]
