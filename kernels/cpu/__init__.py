"""The same operations in Numba, with matrix products through BLAS."""
