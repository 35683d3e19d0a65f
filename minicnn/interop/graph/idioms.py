"""Several operations that are one layer of ours, and are recognised before lowering: locally connected layers, GELU.

Response normalisation in disguise, and channels that are treated apart, are recognised while lowering (arithmetic.py,
windows.py).
"""

from __future__ import annotations

import numpy as np

from minicnn.interop.graph.neutral import Graph, Op


def recognise(graph: Graph) -> Graph:
    """The graph with locally connected layers and GELU as single operations."""
    makers = {name: op for op in graph.ops for name in op.outputs}
    readers: dict[str, list[Op]] = {}
    for op in graph.ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)
    for op in graph.ops:
        if op.kind in CHAINS and (found := CHAINS[op.kind](graph, op, makers, readers)):
            chain, made = found
            at = next(k for k, other in enumerate(graph.ops) if other is chain[-1])
            ops = [made if k == at else other for k, other in enumerate(graph.ops)]
            graph.ops = [other for other in ops if all(other is not one for one in chain)]
    return graph


def _local(graph: Graph, product: Op, makers: dict, readers: dict) -> tuple[list[Op], Op] | None:
    """The operations around a matrix product for each place, as onnx/write.py has them, and the layer that they are."""
    try:
        places = makers[product.inputs[0]]
        rows = makers[places.inputs[0]]
        taken = makers[rows.inputs[0]]
        (total,), w = readers[product.outputs[0]], _array(graph, product.inputs[1])
        (back,) = readers[total.outputs[0]]
        (final,) = readers[back.outputs[0]]
        b = _array(graph, next(name for name in total.inputs if name != product.outputs[0]))
        kernel, maps = _array(graph, taken.inputs[1]), _array(graph, final.inputs[1])
    except (KeyError, ValueError, IndexError, StopIteration):
        return None
    chain = [taken, rows, places, product, total, back, final]
    if [op.kind for op in chain] != ["conv", "reshape", "transpose", "matmul", "add", "transpose", "reshape"]:
        return None
    if places.attrs.get("perm") != [2, 0, 1] or back.attrs.get("perm") != [1, 2, 0] or w.ndim != 3 or maps.size != 4:
        return None
    taps, C = kernel.shape[2] * kernel.shape[3], taken.attrs["groups"]
    one_hot = np.tile(np.eye(taps, dtype=np.float32).reshape(taps, 1, *kernel.shape[2:]), (C, 1, 1, 1))
    (K, P, Q), places_count = (int(size) for size in maps.reshape(-1)[1:]), w.shape[0]
    if not np.array_equal(kernel, one_hot) or w.shape[1:] != (C * taps, K) or P * Q != places_count != 0:
        return None
    w = w.reshape(P, Q, C, *kernel.shape[2:], K).transpose(3, 4, 2, 0, 1, 5)
    names = [f"{final.outputs[0]}.{local}" for local in ("weight", "bias")]
    graph.constants |= {names[0]: np.ascontiguousarray(w), names[1]: b.reshape(P, Q, K)}
    attrs = {name: taken.attrs.get(name) for name in ("stride", "pads", "auto_pad")} | {"kernel": kernel.shape[2:]}
    return chain, Op("local", final.name, [taken.inputs[0], *names], final.outputs, attrs, "MatMul for each place")


def _gelu(graph: Graph, erf: Op, makers: dict, readers: dict) -> tuple[list[Op], Op] | None:
    """x * 0.5 * (1 + erf(x / sqrt(2))), as PyTorch writes it: 0.5 is a factor of the product, or of x alone."""
    try:
        scaled, (total,) = makers[erf.inputs[0]], readers[erf.outputs[0]]
        (product,) = readers[total.outputs[0]]
        x = _times(graph, makers, scaled, 0.5**0.5)
        other = next(name for name in product.inputs if name != total.outputs[0])
        if other == x:
            chain = [scaled, erf, total, product, *readers[product.outputs[0]]]
            halved, half = product.outputs[0], chain[-1]
        else:
            chain = [makers[other], scaled, erf, total, product]
            halved, half = x, chain[0]
        one = next(_number(graph, makers, name) for name in total.inputs if name != erf.outputs[0])
        inside = [name for op in chain[:-1] for name in op.outputs]
        if (total.kind, one, product.kind, _times(graph, makers, half, 0.5)) != ("add", 1.0, "mul", halved) or any(
                len(readers[name]) > 1 or name in graph.outputs for name in inside):
            return None
    except (KeyError, ValueError, IndexError, StopIteration):
        return None
    return chain, Op("gelu", chain[-1].name, [x], chain[-1].outputs, {}, "Erf of a GELU")


def _times(graph: Graph, makers: dict, op: Op, factor: float) -> str | None:
    """The value that an operation multiplies by this factor; None where it does something else."""
    first, second = op.inputs
    if op.kind == "div" and (by := _number(graph, makers, second)):
        return first if abs(1 / by / factor - 1) < 1e-6 else None
    for x, constant in ((first, second), (second, first)):
        if op.kind == "mul" and (by := _number(graph, makers, constant)):
            return x if abs(by / factor - 1) < 1e-6 else None
    return None


CHAINS = {"matmul": _local, "erf": _gelu}


def _number(graph: Graph, makers: dict, name: str) -> float | None:
    """A constant of one element; None for other values."""
    made = makers.get(name)
    if name in graph.constants:
        array = _array(graph, name) if graph.constants[name].shape in ((), (1,)) else None
    else:
        array = np.asarray(made.attrs["value"]) if made is not None and made.kind == "constant" else None
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _array(graph: Graph, name: str) -> np.ndarray:
    found = graph.constants[name]
    return found if isinstance(found, np.ndarray) else found.read()
