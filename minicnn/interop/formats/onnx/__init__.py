"""ONNX, read and written without its package."""
