"""On a GPU, one step of training as a CUDA graph: captured once, then replayed at the price of a single launch.

    the loop's net.loss and backward_and_update        launched one operation after the other, and waited for
    CapturedStep                                       the same operations, and the same bits, in one launch

What changes with every step (learning rate, epoch, sample ids, labels) lies in device memory and is written before each
replay. Loss and correct predictions are summed on the device until `read`. The host is a step or two ahead, and never
further.
"""

from __future__ import annotations

import numpy as np

from minicnn.backend.ops import DeviceNumber, address
from minicnn.checks import check_labels
from minicnn.evaluate.metrics import RunningMetrics
from minicnn.train.loss_scale import LossScale
from minicnn.train.optimiser import Optimiser

READ_EVERY = 16             # steps after which the sums are read
AHEAD = 2                   # steps that the host may be ahead of the device


def captured_step(net, optimiser: Optimiser, loss_scale: LossScale | None,
                  metrics: RunningMetrics) -> CapturedStep | None:
    """A CapturedStep where the backend can capture and the network lets it; else None."""
    if net.ops.capture is None or net.ranks.is_split or not_capturable(net):
        return None
    return CapturedStep(net, optimiser, loss_scale, metrics)


def not_capturable(net) -> str:
    """The first layer whose host code is needed in every step; "" where there is none."""
    return next((node.name for node in net.nodes if not node.layer.capturable), "")


def backward_and_update(net, optimiser: Optimiser, loss_scale: LossScale | None = None, lr=None) -> None:
    """The backward pass of the last loss, and one step of the optimiser; at once where the gradient is used for nothing
    else, so that it is never in memory (Optimiser.updates_within).   lr: in place of `optimiser.lr`.
    """
    if loss_scale:                                  # an update must know first whether any gradient overflowed
        net.backward(loss_scale=loss_scale.state)
        optimiser.step(net.ops, loss_scale, lr=lr)
    elif updates := optimiser.updates_within(net, optimiser.lr if lr is None else lr):
        net.backward(updates=updates)
        optimiser.step(net.ops, lr=lr, without=updates.done)
    else:
        net.backward()
        optimiser.step(net.ops, lr=lr)


class CapturedStep:
    """Steps of `net` by `optimiser`. The first step on new arrays is launched as usual, and the second one is captured.

    loss_scale: for devices that need one.   metrics: what was counted before.
    """

    def __init__(self, net, optimiser: Optimiser, loss_scale: LossScale | None, metrics: RunningMetrics):
        self.net, self.optimiser, self.loss_scale = net, optimiser, loss_scale
        self._sums = net.ops.from_host(np.array(list(metrics.state().values()), np.float64))
        self._inputs = None                         # per-step values in device memory; see _write_inputs
        self._arrays = None                         # what the last step ran on; see _arrays_of
        self._replay, self._losses = None, []
        self._events: list = []                     # of the steps that may be under way

    def run(self, x, labels: np.ndarray, sample_ids: np.ndarray, epoch: int) -> None:
        """One step, on images x (N, H, W, C) of the net's backend, at the learning rate `optimiser.lr`."""
        if len(self._events) >= AHEAD:
            self._events.pop(0)()
        self._write_inputs(np.asarray(labels), np.asarray(sample_ids), epoch)
        if self._arrays_of(x) == self._arrays:
            self._replay = self._replay or self.net.ops.capture(lambda: self._launch(x))
            self._replay()
        else:
            self._replay = None                     # lets go of its arrays, before others are made
            self._launch(x)
            self._arrays = self._arrays_of(x)
        self._events.append(self.net.ops.record_event())

    def _arrays_of(self, x) -> tuple:
        """What must be the same for a captured step to be replayed."""
        return x.shape, address(x), self.net.memory_version

    def _write_inputs(self, labels: np.ndarray, sample_ids: np.ndarray, epoch: int) -> None:
        """Learning rate, epoch, sample ids and labels to where the captured step reads them."""
        check_labels(labels, len(sample_ids), self.net.num_classes)
        scalars = np.array([self.optimiser.lr, epoch], np.float64)
        parts = (scalars, sample_ids.astype(np.uint32), labels.astype(np.int32))
        inputs = self.net.ops.from_host(np.concatenate([part.view(np.uint8) for part in parts]))
        if self._inputs is None or self._inputs.shape != inputs.shape:
            self._inputs, self._arrays = inputs, None
        else:
            self._inputs[...] = inputs

    def _launch(self, x) -> None:
        """The step itself. It calls the device and nothing but the device."""
        net, inputs, count = self.net, self._inputs, len(x)
        lr, epoch = (DeviceNumber(inputs[at:at + 8].view(np.float64)) for at in (0, 8))
        ids, labels = inputs[16:16 + 4 * count].view(np.uint32), inputs[16 + 4 * count:].view(np.int32)
        net.start_loss(x, labels, sample_ids=ids, epoch=epoch)
        net.count(self._sums)
        self._losses = net.last_losses()
        backward_and_update(net, self.optimiser, self.loss_scale, lr)

    def read(self) -> tuple[float, RunningMetrics]:
        """The loss of the last step, and all that was counted. Waits for the device."""
        images, loss, top1, top5 = self.net.ops.to_host(self._sums).tolist()
        return self.net.mean_loss(self._losses), RunningMetrics(int(images), loss, int(top1), int(top5))
