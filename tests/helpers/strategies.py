"""Hypothesis strategies for layers with windows, and the assertion on their gradient checks."""

from __future__ import annotations

from hypothesis import assume
from hypothesis import strategies as st

from minicnn.errors import ShapeError
from minicnn.gradcheck import Report
from minicnn.shapes import window_output


@st.composite
def windows(draw, largest: int = 4, pad_below_kernel: bool = False):
    """(image size, options): a window with any stride, four paddings, floor or ceil, with at least two outputs."""
    size = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    kernel = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    highest = [extent - 1 if pad_below_kernel else extent for extent in (*kernel, *kernel)]
    padding = draw(st.tuples(*(st.integers(0, min(limit, 3)) for limit in highest)))
    ceil = draw(st.booleans())
    try:
        (P, Q), _ = window_output(size, kernel, stride, padding, ceil)
    except ShapeError:
        assume(False)
    assume(P * Q >= 2)
    return size, {"kernel": kernel, "stride": stride, "padding": padding, "ceil": ceil}


def must_pass(report: Report) -> None:
    """Fail if the report does; examples with an identically zero gradient, such as a dead ReLU's, are discarded."""
    assume(not any(row.is_vacuous for row in report.rows))
    report.raise_if_failed()
