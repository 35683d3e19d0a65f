"""Files of other programs, read without them: as tensors by name, or as a neutral graph (minicnn/interop/graph)."""
