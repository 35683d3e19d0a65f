"""A graph as a list of operations on named values, in the source's own axes (channels first, for most).

Readers translate the attributes of their format and version into these kinds; lower.py makes layers of them.

    conv               x, w, [b]; stride, pads or auto_pad, groups, dilation
    maxpool avgpool    kernel, stride, pads or auto_pad, ceil, dilation; count: "image" or "padding"
    globalpool         kind: "mean" or "max";   reducemean: axes, keepdims
    lrn                n, k, alpha (divided by n), beta;   lrn_within: the same over n x n pixels (divided by n^2)
    batchnorm          x, gamma, beta, mean, var; eps, momentum
    gemm               x, w, [b]; transposed: w is (out, in);   matmul: x, w
    local              x, w (R, S, C, P, Q, K), b (P, Q, K), already in our axes; kernel, stride, pads
    relu leakyrelu clip tanh sigmoid gelu erf dropout identity softmax
    add sub mul div pow sqrt neg, concat split slice gather transpose reshape flatten squeeze unsqueeze pad expand
    constant shape cast constantofshape equal range if
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.interop.formats.stored import InMemory, Stored

MAX_NODES = 100_000
Constant = Stored | InMemory | np.ndarray


@dataclass
class Op:
    """One operation.   origin: what the source calls its kind.   inputs: names of values, "" for one left out."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict = field(default_factory=dict)
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.origin or self.kind} {self.name or self.outputs[0]!r}"


@dataclass
class Graph:
    """inputs: name -> shape, with None for the batch and for what the file does not say.   constants: weights, by name.
    ours: the file was written by minicnn.   layout: "NCHW", or "NHWC" for inputs that are channels-last.
    """

    inputs: dict[str, tuple]
    outputs: list[str]
    ops: list[Op]
    constants: dict[str, Constant]
    name: str = "net"
    ours: bool = False
    layout: str | None = None

    def check(self) -> None:
        """CheckpointError for a graph with two values of one name, or one that is used before it is made."""
        if len(self.ops) > MAX_NODES:
            raise CheckpointError(f"has {len(self.ops):,} nodes, more than the limit of {MAX_NODES:,}")
        known = {*self.inputs, *self.constants, ""}
        for op in self.ops:
            if missing := [name for name in op.inputs if name not in known]:
                raise CheckpointError(f"{op} reads {missing[0]!r}, which nothing before it makes")
            if again := [name for name in op.outputs if name and name in known]:
                raise CheckpointError(f"{op} makes {again[0]!r}, which is made already")
            known |= set(op.outputs)
        if missing := [name for name in self.outputs if name not in known]:
            raise CheckpointError(f"its output {missing[0]!r} is made by nothing")

    def needed(self, outputs: list[str]) -> list[Op]:
        """The operations that these values depend on."""
        wanted, kept = set(outputs), []
        for op in reversed(self.ops):
            if wanted & set(op.outputs):
                kept.append(op)
                wanted |= set(op.inputs) | set(op.attrs.get("reads", ()))
        return kept[::-1]


def refuse(op: Op, why: str, *, shapes=(), advice: str = "") -> CheckpointError:
    """The error for an operation: the node, the operator, shapes and advice, in one line."""
    seen = f" (inputs {' and '.join('x'.join(map(str, shape)) for shape in shapes)})" if shapes else ""
    return CheckpointError(f"{op}: {why}{seen}{f'; {advice}' if advice else ''}")
