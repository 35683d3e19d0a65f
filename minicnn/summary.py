"""The table of `net.summary(batch)`, and the memory required for a step."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from minicnn.plan import LABELS, Node, Plan, Step

HEAD = ("layer", "output", "", "parameters", "MACs", "field", "step", "runs as")
RIGHT = (False, False, False, True, True, True, True, False)
TRAINING_ONLY = "in training only"
LEGEND = ("field, step: receptive field of an element, and distance between those of neighbours, in pixels of the "
          "image; runs as: backend, algorithm")
GRADIENTS = "; dx, dw: of the gradients with respect to input and weights, where it differs"


@dataclass(frozen=True)
class Field:
    """What of the image an element of a layer's output depends on. Pairs are (height, width), in pixels.

    size: the receptive field; of several branches the largest; it may be larger than the image.   step: how far apart
    the fields of neighbouring elements are, the product of all strides.
    """

    size: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)

    def behind(self, window: tuple[int, int], stride: tuple[int, int]) -> Field:
        """That of a layer whose elements read `window` of these, `stride` apart."""
        return Field(tuple(size + (k - 1) * step for size, k, step in zip(self.size, window, self.step, strict=True)),
                     tuple(step * s for step, s in zip(self.step, stride, strict=True)))


def receptive_fields(net) -> dict[str, Field]:
    """The receptive field of every input and node; of a flattened or averaged map, that of all its elements."""
    plan = net.compile_plan(1, [*net.losses, net.output], (), grad=False)
    fields = dict.fromkeys(net.inputs, Field())
    for node in net.nodes:
        if node.name not in plan.shapes:
            continue
        sources = [name for name in node.inputs if name != LABELS]
        window, stride = node.layer.plan([plan.shapes[name] for name in node.inputs], net.dtype, net.ops).window
        joined = [fields[name] for name in sources]
        both = Field(*(tuple(max(getattr(field, what)[axis] for field in joined) for axis in (0, 1))
                       for what in ("size", "step")))
        fields[node.name] = both.behind(window, stride)
    return fields


def summarize(net, batch: int) -> str:
    """One line per layer: output shape, configuration, parameters, multiply-adds, receptive field and backend; totals
    below.

    A layer that does not read the one above it names what it reads. What only training needs is listed where it is
    read, with its loss, and counted separately.
    """
    plan: Plan = net.compile_plan(batch, [net.output], (), grad=False)
    train = net.compile_plan(batch, [*net.losses, net.output], (), grad=True)
    fields, steps, above = receptive_fields(net), _steps(train) | _steps(plan), next(iter(net.inputs))
    rows = [HEAD, *((name, _by(shape), "", "", "", "", "", "") for name, shape in net.inputs.items())]
    for node in net.nodes:
        predicts = node.name in plan.shapes
        if predicts or (node.name in train.shapes and (not node.layer.is_loss or node.layer.train_only)):
            where = plan if predicts else train
            rows.append(_row(net, where, node, steps[node.name], batch, above, fields[node.name]))
            above = node.name
    lines = _table(rows)
    itemsize = np.dtype(net.dtype).itemsize
    activations = train.arena_bytes + sum(s.nbytes for s in train.storages if s.outside)
    macs, all_macs = (sum(step.macs for step in each.steps) / batch for each in (plan, train))
    training_only = sum(_parameters(node) for node in net.nodes if node.name not in plan.shapes)
    lines += [
        LEGEND + GRADIENTS * any(re.search(r"\bd[xw] ", step.algorithm) is not None for step in steps.values()),
        "",
        f"{net.name}: {net.num_params:,} parameters ({net.num_params * itemsize / 2**20:,.0f} MiB), "
        f"{macs / 1e6:,.1f} M multiply-adds per image",
        f"batch {batch}: {(plan.arena_bytes) / 2**20:,.0f} MiB of activations for inference, "
        f"{activations / 2**20:,.0f} MiB for training" + (", activations in bf16" if train.stored == "uint16" else ""),
    ]
    if all_macs > macs:
        lines.append(f"{TRAINING_ONLY}: {training_only:,} of the parameters, and {(all_macs - macs) / 1e6:,.1f} M more "
                     "multiply-adds")
    return "\n".join(lines)


def _steps(plan: Plan) -> dict[str, Step]:
    """Node -> the step that computes it, alone or fused into another node."""
    return {node.name: step for step in plan.steps for node in (*step.fused, step.node)}


def _row(net, plan: Plan, node: Node, step: Step, batch: int, above: str, field: Field) -> tuple[str, ...]:
    """The line of a node; `above`: the node of the line above it."""
    shape, count, loss = plan.shapes[node.name][1:], _parameters(node), node.layer.is_loss
    macs = step.macs // batch if step.node is node else 0
    runs = _runs_as(net, plan, node, step) + (f", {TRAINING_ONLY}" if plan.grad and not loss else "")
    return (node.name, _by(shape), _what(node, above), f"{count:,}" if count else "",
            f"{macs / 1e6:,.1f} M" if macs else "", *map(_one_number, () if loss else (field.size, field.step)),
            *("",) * 2 * loss, runs)


def _what(node: Node, above: str) -> str:
    """The layer's kind and configuration, and what it reads if that is not the line above."""
    what = f"{type(node.layer).__name__} {node.layer.describe()}".strip()
    sources = [name for name in node.inputs if name != LABELS]
    if sources == [above]:
        return what
    return f"{what} <- {', '.join(sources) if len(sources) < 3 else f'{len(sources)} branches'}"


def _runs_as(net, plan: Plan, node: Node, step: Step) -> str:
    if step.node is not node:
        return f"fused into {step.node.name}"
    if node.layer.is_view:
        return "a view"
    fused = [f"+ {type(other.layer).__name__}" for other in step.fused]
    runs = " ".join(filter(None, (net.ops.name, step.algorithm, *fused)))
    return runs + (", in place" if step.y != step.xs[0] and _shares(plan, step) else "")


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """The rows in columns, with a line below the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) if to_right else cell.ljust(width)
                       for cell, width, to_right in zip(row, widths, RIGHT, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _parameters(node: Node) -> int:
    return sum(param.data.size for param in node.layer.params.values())


def _by(shape) -> str:
    return " x ".join(map(str, shape))


def _one_number(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else _by(size)


def _shares(plan: Plan, step) -> bool:
    return plan.values[step.y].storage is plan.values[step.xs[0]].storage


def memory(net, batch: int, train: bool) -> int:
    """Bytes for one step: activations, gradients, state and weights; for training, three copies (w, dw, velocity)."""
    outputs = net.losses + [net.output] if train else [net.output]
    plan = net.compile_plan(batch, outputs, (), grad=train)
    outside = sum(storage.nbytes for storage in plan.storages if storage.outside)
    weights = net.num_params * np.dtype(net.dtype).itemsize
    return plan.arena_bytes + outside + weights * (3 if train else 1) + sum(a.nbytes for a in net.state.values())
