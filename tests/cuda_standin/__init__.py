"""A stand-in for CuPy on a machine without a GPU: with this folder on PYTHONPATH, `import cupy` finds the package here.

    PYTHONPATH=.:tests/cuda_standin python -m pytest -m cuda

The tests marked `cuda`, CupyDevice, captured steps and `make gpu-check` then run as they are. Arrays refuse to become
NumPy's, as CuPy's do; kernels run on the emulator (tests/cuda_emulator), as on an H100; a stream that captures refuses
what needs the host. Only names that CuPy 14.2 has may be added here.

Everything is done at once, in the order of the calls: it says nothing about streams, races or speed.
"""
