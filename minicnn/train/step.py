"""One step of training: loss, what is counted of it, gradients, update.

    TrainStep            each is waited for
    CapturedStep    on a GPU: recorded once and then replayed, the whole of it at the price of a single launch. What is
                    another with every step lies in the device's memory, written before each replay; what is counted
                    stays there until somebody reads it. The host is a step or two ahead, and never further
"""

from __future__ import annotations

import numpy as np

from minicnn.backend.ops import DeviceNumber, address
from minicnn.evaluate.metrics import RunningMetrics
from minicnn.train.loss_scale import LossScale
from minicnn.train.sgd import SGD

READ_EVERY = 16             # steps after which counts are read
AHEAD = 2                   # steps that the host may be ahead of the device


class TrainStep:
    """Steps of `net` by `sgd`.   loss_scale: for devices that need one.   tally: what was counted before."""

    read_every = 1              # steps after which `read` is due

    def __init__(self, net, sgd: SGD, loss_scale: LossScale | None, tally: RunningMetrics):
        self.net, self.sgd, self.loss_scale, self._tally, self._loss = net, sgd, loss_scale, tally, 0.0

    def run(self, x, labels: np.ndarray, sample_ids: np.ndarray, epoch: int) -> None:
        """One step, on images x (N, H, W, C) of the net's backend, at the rate `sgd.lr`."""
        net = self.net
        self._loss = net.loss(x, labels, sample_ids=sample_ids, epoch=epoch)
        if net.ranks.has_logits:
            self._tally.add(self._loss, net.ops.to_host(net.logits), labels)
        net.backward(loss_scale=self._scale)
        self.sgd.step(net.ops, self.loss_scale)

    @property
    def _scale(self):
        """What net.backward takes."""
        return self.loss_scale.state if self.loss_scale else None

    def read(self) -> tuple[float, RunningMetrics]:
        """The loss of the last step, and all that was counted."""
        return self._loss, self._tally


class CapturedStep(TrainStep):
    """The same for a backend that records. A step runs as it is when the arrays are new, and is recorded after that."""

    read_every = READ_EVERY

    def __init__(self, net, sgd: SGD, loss_scale: LossScale | None, tally: RunningMetrics):
        super().__init__(net, sgd, loss_scale, tally)
        self._counted = net.ops.from_host(np.array(list(tally.state().values()), np.float64))
        self._today = None                                  # rate, epoch, sample ids and labels, in one array
        self._arrays, self._replay, self._losses = None, None, []
        self._marks: list = []                              # of the steps that may be under way

    def run(self, x, labels, sample_ids, epoch):
        net = self.net
        if len(self._marks) >= AHEAD:
            self._marks.pop(0)()
        self._write(np.asarray(labels), np.asarray(sample_ids), epoch)
        if self._place(x) != self._arrays:
            self._replay = None                             # lets go of its arrays, before others are made
            self._now(x)
            self._arrays = self._place(x)
        else:
            self._replay = self._replay or net.ops.capture(lambda: self._now(x))
            self._replay()
        self._marks.append(net.ops.record_event())

    def _place(self, x) -> tuple:
        """What must be the same for a recording to be of use."""
        return x.shape, address(x), self.net.moves

    def _write(self, labels: np.ndarray, sample_ids: np.ndarray, epoch: int) -> None:
        """What is new today, to where the recorded step reads it."""
        self.net.check_labels(labels, len(sample_ids))
        parts = (np.array([self.sgd.lr, epoch], np.float64), sample_ids.astype(np.uint32), labels.astype(np.int32))
        today = self.net.ops.from_host(np.concatenate([part.view(np.uint8) for part in parts]))
        if self._today is None or self._today.shape != today.shape:
            self._today, self._arrays = today, None
        else:
            self._today[...] = today

    def _now(self, x) -> None:
        """The step itself. It calls the device and nothing but the device."""
        net, sgd, today, count = self.net, self.sgd, self._today, len(x)
        rate, epoch = (DeviceNumber(today[at:at + 8].view(np.float64)) for at in (0, 8))
        ids, labels = today[16:16 + 4 * count].view(np.uint32), today[16 + 4 * count:].view(np.int32)
        net.start_loss(x, labels, sample_ids=ids, epoch=epoch)
        net.tally(self._counted)
        self._losses = net.last_losses()
        net.backward(loss_scale=self._scale)
        host_rate, sgd.lr = sgd.lr, rate
        try:
            sgd.step(net.ops, self.loss_scale)
        finally:
            sgd.lr = host_rate

    def read(self):
        """Waits for the device."""
        images, loss, top1, top5 = self.net.ops.to_host(self._counted).tolist()
        return self.net.mean_loss(self._losses), RunningMetrics(int(images), loss, int(top1), int(top5))


def step_for(net, sgd: SGD, loss_scale: LossScale | None, tally: RunningMetrics) -> TrainStep:
    """The kind of step that the net and its backend can do."""
    recorded = net.ops.capture is not None and not net.ranks.is_split and not not_capturable(net)
    return (CapturedStep if recorded else TrainStep)(net, sgd, loss_scale, tally)


def not_capturable(net) -> str:
    """The first layer that does not leave everything to the device; "" where there is none."""
    return next((node.name for node in net.nodes if not node.layer.capturable), "")
