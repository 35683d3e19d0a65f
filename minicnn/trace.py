"""Inspecting a network: the outputs of its layers and the arrays saved for backward, in one call.

    seen = net.trace(x, keep=["conv1", "pool5"], saved=["pool5"])
    seen["conv1"], seen["pool5"], seen["pool5.argmax"]
    net.backward(dy, start="pool5", input_grad=True)

A layer whose output is kept is not fused with a ReLU. No hooks and no global state: the caller owns the arrays.
"""

from __future__ import annotations

from collections.abc import Iterable

from minicnn.checks import check_inputs, unknown_layer
from minicnn.errors import ConfigError


def names_of(keep: str | Iterable[str]) -> tuple[str, ...]:
    """One name as a string, or several, as a tuple."""
    return (keep,) if isinstance(keep, str) else tuple(keep)


def trace(net, x, keep: str | Iterable[str] | None = None, saved: str | Iterable[str] = (), *, labels=None,
          train: bool = False, sample_ids=None, epoch: int | None = None) -> dict:
    """See Net.trace."""
    saved, nodes = names_of(saved), {node.name: node for node in net.nodes}
    outputs = [net.output] if labels is None else net.loss_outputs(train)
    if keep is None:
        keep = [name for name, node in nodes.items() if not node.layer.is_loss or name in outputs]
    keep = names_of(keep)
    inspected = {name: name.partition(".")[0] for name in saved}
    if unknown := [name for name in (*keep, *inspected.values()) if name not in nodes]:
        raise unknown_layer(unknown[0], net.nodes)
    if losses := [name for name in (*keep, *inspected.values()) if labels is None and nodes[name].layer.is_loss]:
        raise ConfigError(f"{losses[0]!r} is a loss, which needs labels: pass labels= to trace")
    given = check_inputs(net, x, labels)
    pinned = dict.fromkeys((*keep, *inspected.values()))
    plan = net.compile_plan(len(next(iter(given.values()))), outputs, tuple(pinned), grad=True, stored=net.dtype)
    arrays = net.run_plan(plan, given, train, True, *net.counters(given, False, sample_ids, epoch), update_state=False)
    found = {name: arrays[plan.where[name]] for name in keep}
    steps = {step.node.name: step for step in plan.steps}
    for name, node in inspected.items():
        buffers = {f"{node}.{local}": value for local, value in steps[node].buffers.items()}
        if name != node and name not in buffers:
            raise ConfigError(f"layer {node!r} saves no {name!r} for backward; it saves "
                              f"{', '.join(buffers) or 'nothing'}")
        found |= {full: arrays[value].copy() for full, value in buffers.items() if name in (node, full)}
    return found
