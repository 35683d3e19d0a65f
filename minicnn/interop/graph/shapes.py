"""Lowering: what only changes axes. Transpositions are tags, flattening leaves a mark of the maps."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from minicnn.interop.graph import windows
from minicnn.interop.graph.neutral import Op, refuse
from minicnn.interop.graph.values import Padded, Part, Pooled, Squares, Value
from minicnn.layers.combine import Concat, Flatten, Subsample

KNOWN = "known are Flatten, a reshape to (N, all the rest), and back"


def transpose(low, op: Op) -> list:
    value = low.value(op)
    perm = list(op.attrs.get("perm") or range(len(value.shape))[::-1])
    if sorted(perm) != list(range(len(value.shape))) or value.blocks is not None:
        raise refuse(op, f"exchanges axes by {perm}", shapes=[value.shape])
    shape, order = tuple(value.shape[axis] for axis in perm), tuple(perm.index(axis) for axis in value.order)
    if order[0] != 0:
        raise refuse(op, "moves the axis of the batch", shapes=[value.shape])
    return [low.relabel(op, replace(value, shape=shape, order=order, before=None))]


def flatten(low, op: Op) -> list:
    found = low.given(op, 0)
    axis = op.attrs.get("axis", 1)
    shape = found.shape
    axis = axis + len(shape) if axis < 0 else axis
    if axis < 1 or prod(shape[1:axis]) != 1 and axis != 1:
        raise refuse(op, f"joins the batch with other axes (axis {axis})" if axis < 1 else
                     f"joins only the axes from {axis} on", shapes=[shape], advice=KNOWN)
    return [flattened(low, op)]


def flattened(low, op: Op) -> Value:
    """Input 0 as (N, all the rest)."""
    found = low.given(op, 0)
    if isinstance(found, Pooled):
        return low.flat(found)
    value = low.value(op)
    if len(value.shape) == 2:
        return value
    if value.order not in (tuple(range(len(value.shape))), (0, 2, 3, 1)):
        raise refuse(op, "flattens exchanged axes", shapes=[value.shape], advice=KNOWN)
    features, blocks = prod(value.shape[1:]), None
    if value.is_image and prod(value.shape[2:]) != 1:
        blocks = (tuple(value.shape[1:]),)
    return low.emit(op, Flatten(), [value.node], value, shape=(value.shape[0], features), order=(0, 1), blocks=blocks,
                    before=value)


def reshape(low, op: Op) -> list:
    found, given = low.given(op, 0), low.inputs_of(op)
    target = op.attrs.get("shape")
    if target is None:
        if len(given) < 2 or given[1] is None:
            raise refuse(op, "has a shape that depends on the images", shapes=[found.shape])
        target = given[1].reshape(-1).tolist()
    target = resolved(op, found.shape, [int(size) for size in target])
    if isinstance(found, Squares):
        return [respaced(op, found, target)]
    if target == tuple(found.shape) and not isinstance(found, (Part, Padded)):
        return [found]
    if target == (found.shape[0], prod(found.shape[1:])):
        return [flattened(low, op)]
    if isinstance(found, Value) and found.before is not None and target == found.before.shape:
        return [found.before]
    raise refuse(op, f"makes {'x'.join(map(str, target))} of it", shapes=[found.shape], advice=KNOWN)


def resolved(op: Op, shape: tuple, target: list[int]) -> tuple[int, ...]:
    """The target of a reshape: 0 copies a size, -1 is what is left."""
    for k, size in enumerate(target):
        if size == 0 and not op.attrs.get("allowzero"):
            if k >= len(shape):
                raise refuse(op, f"copies axis {k}, which is not there", shapes=[shape])
            target[k] = shape[k]
    if target.count(-1) == 1:
        rest = -prod(target)
        if rest < 1 or prod(shape) % rest:
            raise refuse(op, f"cannot make {target} of it", shapes=[shape], advice="was another batch baked into it? "
                         "export with a free batch")
        target[target.index(-1)] = prod(shape) // rest
    if min(target, default=1) < 0 or prod(target) != prod(shape):
        raise refuse(op, f"cannot make {target} of it", shapes=[shape], advice="was another batch baked into it? "
                     "export with a free batch")
    return tuple(target)


def respaced(op: Op, found: Squares, target: tuple[int, ...]) -> Squares:
    """Squares with axes of size 1 put in or taken out, or pixels joined."""
    before = prod(found.shape[:found.channels])
    for axis, size in enumerate(target):
        if size == found.shape[found.channels] and prod(target[:axis]) == before and size > 1:
            return replace(found, shape=target, channels=axis)
    raise refuse(op, f"makes {'x'.join(map(str, target))} of x * x", shapes=[found.shape])


def squeeze(low, op: Op) -> list:
    found, axes = low.given(op, 0), _axes(low, op)
    shape = found.shape
    axes = [k for k, size in enumerate(shape) if size == 1] if axes is None else [axis % len(shape) for axis in axes]
    if any(shape[axis] != 1 for axis in axes):
        raise refuse(op, f"drops axes {axes} that are not of size 1", shapes=[shape])
    target = tuple(size for k, size in enumerate(shape) if k not in axes)
    if isinstance(found, Squares):
        return [respaced(op, found, target)]
    if target == shape:
        return [found]
    if len(shape) == 4 and sorted(axes) == [2, 3]:
        return [flattened(low, op)]
    raise refuse(op, f"drops axes {axes}", shapes=[shape], advice=KNOWN)


def unsqueeze(low, op: Op) -> list:
    found, axes = low.given(op, 0), _axes(low, op)
    if isinstance(found, Part) and found.squeezed and axes == [1]:
        return [windows.part_of(found.value, found.begin, found.end)]
    if isinstance(found, Squares) and axes:
        target = list(found.shape)
        for axis in sorted(axis % (len(found.shape) + len(axes)) for axis in axes):
            target.insert(axis, 1)
        return [respaced(op, found, tuple(target))]
    raise refuse(op, f"adds axes {axes}", shapes=[found.shape], advice=KNOWN)


def _axes(low, op: Op) -> list[int] | None:
    given = low.inputs_of(op)
    if "axes" in op.attrs:
        return list(op.attrs["axes"])
    return given[1].reshape(-1).tolist() if len(given) > 1 and given[1] is not None else None


def concat(low, op: Op) -> list:
    found = [low.given(op, k) for k in range(len(op.inputs))]
    if all(isinstance(one, Part) for one in found) and op.attrs["axis"] % 4 == 1:
        return windows.joined(low, op, found)
    values = [low.value(op, k) for k in range(len(found))]
    first, shapes = values[0], [value.shape for value in values]
    axis = op.attrs["axis"] % len(first.shape)
    if any(value.order != first.order for value in values) or axis != first.channel_axis:
        raise refuse(op, f"joins axis {axis}; only channels, or features, can be joined", shapes=shapes)
    if any(s[:axis] + s[axis + 1:] != shapes[0][:axis] + shapes[0][axis + 1:] for s in shapes):
        raise refuse(op, "joins maps of different sizes", shapes=shapes)
    blocks = None
    if any(value.blocks is not None for value in values):
        blocks = tuple(block for value in values for block in value.blocks or ((value.shape[1], 1, 1),))
    total = sum(shape[axis] for shape in shapes)
    shape = (*first.shape[:axis], total, *first.shape[axis + 1:])
    if len(values) == 1:
        return [first]
    return [low.emit(op, Concat(), [value.node for value in values], first, shape=shape, blocks=blocks)]


def reducemean(low, op: Op) -> list:
    found = low.given(op, 0)
    if isinstance(found, Squares):
        raise refuse(op, "averages x * x", shapes=[found.shape])
    value, axes = low.value(op), _axes(low, op)
    if not axes:
        raise refuse(op, "averages over all axes", shapes=[value.shape])
    axes = sorted(axis % len(value.shape) for axis in axes)
    if len(value.shape) != 4 or axes != sorted(value.order[1:3]):
        raise refuse(op, f"averages over axes {axes}; only height and width together can be", shapes=[value.shape])
    image = value if value.is_image else replace(value, shape=tuple(value.shape[axis] for axis in (0, 3, 1, 2)),
                                                 order=(0, 2, 3, 1), before=None)
    pooled = Pooled(image, op)
    if not op.attrs.get("keepdims", 1):
        return [low.flat(pooled)]
    if image is not value:
        raise refuse(op, "keeps the axes of a mean, channels-last", shapes=[value.shape], advice="export with "
                     "keepdims = 0")
    return [pooled]


def pad(low, op: Op) -> list:
    found, given = low.given(op, 0), low.inputs_of(op)
    pads = op.attrs.get("pads") or (given[1].reshape(-1).tolist() if len(given) > 1 and given[1] is not None else None)
    fill = op.attrs.get("value", given[2].reshape(-1)[0] if len(given) > 2 and given[2] is not None else 0.0)
    rank = len(found.shape)
    if len(given) > 3 and given[3] is not None and pads is not None:
        axes, few = [int(axis) % rank for axis in given[3].reshape(-1)], pads
        pads = [0] * (2 * rank)
        for k, axis in enumerate(axes):
            pads[axis], pads[axis + rank] = few[k], few[k + len(axes)]
    if pads is None or len(pads) != 2 * rank or min(pads) < 0:
        raise refuse(op, f"pads by {pads}; cutting off is not here", shapes=[found.shape])
    if op.attrs.get("mode", "constant") != "constant" or float(fill) != 0.0:
        raise refuse(op, f"pads by {op.attrs.get('mode', 'constant')} {float(fill):g}; only zeros can be",
                     shapes=[found.shape])
    if not any(pads):
        return [found]
    if isinstance(found, Squares):
        return [_padded_squares(op, found, [int(size) for size in pads])]
    value, outer = low.image(op)
    top, left, bottom, right = pads[2], pads[3], pads[6], pads[7]
    if (pads[1] or pads[5]) and not any((top, left, bottom, right, pads[0], pads[4], *outer)):
        channels = int(pads[1] + value.shape[1] + pads[5])      # of zeros: as in shortcut A of ResNets
        shape = (value.shape[0], channels, *value.shape[2:])
        return [low.emit(op, Subsample(channels, 1, before=int(pads[1])), [value.node], value, shape=shape)]
    if any(pads[k] for k in (0, 1, 4, 5)):
        raise refuse(op, f"pads the batch, or the channels and pixels, by {pads}", shapes=[value.shape])
    return [Padded(value, tuple(int(a + b) for a, b in zip((top, left, bottom, right), outer, strict=True)))]


def _padded_squares(op: Op, found: Squares, pads: list[int]) -> Squares:
    """Zeros before the first and after the last channel."""
    rank, axis = len(found.shape), found.channels
    before, after = pads[axis], pads[axis + rank]
    if sum(pads) != before + after or any(found.pads) or found.window != (1, 1, 1):
        raise refuse(op, f"pads x * x by {pads}", shapes=[found.shape])
    shape = list(found.shape)
    shape[axis] += before + after
    return replace(found, shape=tuple(shape), pads=(before, after))


HANDLERS = {"transpose": transpose, "flatten": flatten, "reshape": reshape, "squeeze": squeeze, "unsqueeze": unsqueeze,
            "concat": concat, "reducemean": reducemean, "pad": pad}
