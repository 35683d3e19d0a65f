"""PyTorch's side of a benchmark of one operation: its passes in each setting, compared with ours before it is timed."""

from __future__ import annotations

import numpy as np
from devices import Host

SETTINGS = ("eager", "channels_last", "compile")
TOLERANCE = 1e-5                            # of the largest value


def peers_of(torch, name: str, function, tx, tdy, ours: tuple, device=Host, parameters: tuple = (),
             tolerance: float = TOLERANCE) -> dict:
    """Setting -> pass -> PyTorch's function. tx, tdy: (N, C, H, W); ours: our y and dx (N, H, W, C) of the same.
    parameters: tensors whose gradients are computed, too.   tolerance: relative to the largest value.

    SystemExit where a setting computes something else than minicnn.
    """
    peers = {}
    for setting in SETTINGS:
        peers[setting] = _passes(torch, setting, function, tx, tdy, parameters)
        for our, their in zip(ours, peers[setting]["forward + backward"](), strict=True):
            our, their = device.to_host(our), device.to_host(their.permute(0, 2, 3, 1))
            difference = np.abs(our - their).max() / np.abs(our).max()
            if not difference < tolerance:
                raise SystemExit(f"error: {name}: PyTorch, {setting}, differs from ours by {difference:.1e} of the "
                                 f"largest, where {tolerance:.0e} is allowed; these times cannot be compared")
    return peers


def _passes(torch, setting: str, function, tx, tdy, parameters: tuple) -> dict:
    if setting == "compile":
        function = torch.compile(function, dynamic=False)             # for these shapes only
    form = torch.contiguous_format if setting == "eager" else torch.channels_last
    tx, tdy = (a.contiguous(memory_format=form) for a in (tx, tdy))
    leaf = tx.detach().requires_grad_()

    def forward():
        with torch.no_grad():
            return function(tx)

    def both():
        ty = function(leaf)
        return ty, torch.autograd.grad(ty, [leaf, *parameters], tdy)[0]

    return {"forward": forward, "forward + backward": both}
