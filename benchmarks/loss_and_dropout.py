"""The small operations of a training step on a GPU, ours beside PyTorch's: softmax with its loss, and dropout.

Each takes microseconds, less than Python needs to launch one. So a time is that of twenty in a row, which both sides
capture and replay, as in a step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BATCH, CLASSES, UNITS, RATE = 128, 1000, 9216, 0.5
TIMES = 20
TOLERANCE = 1e-6                            # of a probability divided by the batch
WAYS = ("eager", "compile")


def functions_of_loss(torch, ops, device) -> dict[str, Callable]:
    """Side -> softmax, loss and gradient of (128, 1000) scores, twenty times. The gradients are compared first."""
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((BATCH, CLASSES), np.float32), rng.integers(0, CLASSES, BATCH)
    x, y = ops.from_host(scores), ops.from_host(labels.astype(np.int32))
    probs, losses, dx = ops.empty(x.shape, "float32"), ops.empty((BATCH,), "float32"), ops.empty(x.shape, "float32")

    def ours():
        ops.softmax_cross_entropy_forward(x, y, probs, losses)
        ops.softmax_cross_entropy_backward(probs, y, dx, scale=1 / BATCH)

    functions = {"ours": twenty(ops, ours)}
    functions["ours"]()
    wanted = ops.to_host(dx)
    leaf, target = device.tensor(torch.from_numpy(scores)).requires_grad_(), device.tensor(torch.from_numpy(labels))
    for way in WAYS:
        loss = compiled(torch, way, torch.nn.functional.cross_entropy)

        def theirs(loss=loss):
            return torch.autograd.grad(loss(leaf, target), leaf)[0]

        apart = np.abs(device.to_host(theirs()) - wanted).max() * BATCH
        if not apart < TOLERANCE:
            raise SystemExit(f"error: softmax: PyTorch, {way}, differs from ours by {apart:.1e}, where {TOLERANCE:.0e} "
                             "is allowed; these times cannot be compared")
        functions[way] = device.captured(theirs, TIMES)
    return functions


def functions_of_dropout(torch, ops, device) -> dict[str, Callable]:
    """Side -> dropout of (128, 9216) values, forward and backward, twenty times. Each must keep half, doubled."""
    ones, ids = np.ones((BATCH, UNITS), np.float32), ops.from_host(np.arange(BATCH, dtype=np.uint32))
    x, y, dx = ops.from_host(ones), ops.empty(ones.shape, "float32"), ops.empty(ones.shape, "float32")
    options = {"rate": RATE, "scale": 1 / (1 - RATE), "seed": 0, "purpose": 1, "epoch": 0, "sample_ids": ids}

    def ours():
        ops.dropout_forward(x, y, **options)
        ops.dropout_backward(x, dx, **options)

    functions = {"ours": twenty(ops, ours)}
    functions["ours"]()
    must_halve("ours", ops.to_host(y))
    leaf = device.tensor(torch.from_numpy(ones)).requires_grad_()
    gradient = torch.ones_like(leaf)
    for way in WAYS:
        dropout = compiled(torch, way, torch.nn.functional.dropout)

        def theirs(dropout=dropout):
            dropped = dropout(leaf, RATE)
            return dropped, torch.autograd.grad(dropped, leaf, gradient)

        must_halve(f"PyTorch, {way},", device.to_host(theirs()[0]))
        functions[way] = device.captured(theirs, TIMES)
    return functions


def twenty(ops, function: Callable) -> Callable:
    """Twenty calls, captured."""
    function()                                      # compiles what it needs
    return ops.capture(lambda: [function() for _ in range(TIMES)])


def compiled(torch, way: str, function: Callable) -> Callable:
    return torch.compile(function, dynamic=False) if way == "compile" else function


def must_halve(whose: str, y: np.ndarray) -> None:
    kept = y[y != 0]
    if not (abs(kept.size / y.size - RATE) < 0.01 and (kept == 1 / (1 - RATE)).all()):
        raise SystemExit(f"error: dropout: {whose} kept {kept.size / y.size:.3f} of the values, or did not double "
                         "them; these times cannot be compared")
