"""The table of `net.summary(batch)`, and the memory required for a step."""

from __future__ import annotations

import numpy as np

from minicnn.plan import Plan


def summarize(net, batch: int) -> str:
    """One line per layer: output shape, configuration, parameters, multiply-adds and backend; totals below."""
    plan: Plan = net.compile_plan(batch, [net.output], (), grad=False)
    train = net.compile_plan(batch, [*net.losses, net.output], (), grad=True)
    steps = {step.node.name: step for step in plan.steps}
    fused_into = {node.name: step.node.name for step in plan.steps for node in step.fused}
    rows = [("layer", "output", "", "parameters", "MACs", "runs as")]
    for name, shape in net.inputs.items():
        rows.append((name, _by(shape), "", "", "", ""))
    macs = 0
    for node in net.nodes:
        if node.name not in plan.where:
            continue
        shape = plan.values[plan.where[node.name]].shape[1:]
        count = sum(param.data.size for param in node.layer.params.values())
        step = steps.get(node.name)
        if step is None:
            runs = f"fused into {fused_into[node.name]}"
        elif node.layer.is_view:
            runs = "a view"
        else:
            fused = [f"+ {type(node.layer).__name__}" for node in step.fused]
            runs = " ".join(filter(None, (net.ops.name, step.algorithm, *fused)))
            runs += ", in place" if step.y != step.xs[0] and _shares(plan, step) else ""
        macs += step.macs if step else 0
        what = f"{type(node.layer).__name__} {node.layer.describe()}".strip()
        rows.append((node.name, _by(shape), what, f"{count:,}" if count else "",
                     f"{step.macs // batch / 1e6:,.1f} M" if step and step.macs else "", runs))
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    right = (False, False, False, True, True, False)
    lines = ["  ".join(cell.rjust(width) if to_right else cell.ljust(width)
                       for cell, width, to_right in zip(row, widths, right, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    itemsize = np.dtype(net.dtype).itemsize
    activations = train.arena_bytes + sum(s.nbytes for s in train.storages if s.outside)
    lines += [
        "",
        f"{net.name}: {net.num_params:,} parameters ({net.num_params * itemsize / 2**20:,.0f} MiB), "
        f"{macs / batch / 1e6:,.1f} M multiply-adds per image",
        f"batch {batch}: {(plan.arena_bytes) / 2**20:,.0f} MiB of activations for inference, "
        f"{activations / 2**20:,.0f} MiB for training",
    ]
    return "\n".join(lines)


def _by(shape) -> str:
    return " x ".join(map(str, shape))


def _shares(plan: Plan, step) -> bool:
    return plan.values[step.y].storage is plan.values[step.xs[0]].storage


def memory(net, batch: int, train: bool) -> int:
    """Bytes for one step: activations, gradients, state and weights; for training, three copies (w, dw, velocity)."""
    outputs = net.losses + [net.output] if train else [net.output]
    plan = net.compile_plan(batch, outputs, (), grad=train)
    outside = sum(storage.nbytes for storage in plan.storages if storage.outside)
    weights = net.num_params * np.dtype(net.dtype).itemsize
    return plan.arena_bytes + outside + weights * (3 if train else 1) + sum(a.nbytes for a in net.state.values())
