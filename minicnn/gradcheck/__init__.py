"""Gradient checking: check.py does it, functions.py is what it differentiates, cases.py what the command checks."""

from minicnn.gradcheck.check import GradientError, Report, TensorCheck, check_layer, check_net, table_header, table_line

__all__ = ["GradientError", "Report", "TensorCheck", "check_layer", "check_net", "table_header", "table_line"]
