"""Gradient checking: check.py compares, functions.py wraps layers and nets, cases.py lists the cases of the command."""

from minicnn.gradcheck.check import GradientError, Report, TensorCheck, check_layer, check_net, table_header, table_line

__all__ = ["GradientError", "Report", "TensorCheck", "check_layer", "check_net", "table_header", "table_line"]
