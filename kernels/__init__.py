"""minicnn.kernels: the hot loops, one folder per backend, the same file names in each (see README.md)."""
