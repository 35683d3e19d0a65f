"""The base of the files of this folder: one for each kind of operation, as in kernels/cuda.

Each holds a part of CudaOps (minicnn/backend/cuda/ops.py), which inherits from all of them.
"""

from __future__ import annotations

from minicnn.backend.cuda.launcher import Launcher


class Kind:
    """What the operations of one kind may use."""

    _gpu: Launcher              # launches kernels
    version: str                # of the matrix products, see products.py
    products: str               # the type that tensor cores multiply
