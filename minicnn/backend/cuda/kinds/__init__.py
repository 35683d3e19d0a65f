"""The operations of the CUDA backend, a file for each kind: see kind.py."""
