"""A layer of one's own in thirty lines, its gradient check, and a network of one's own that uses it.

    python examples/own_net_and_layer.py

Runs in seconds and needs no files: the images are procedural patterns in four classes.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from minicnn import Builder, MinicnnError, Net
from minicnn.data.procedural import procedural_sets
from minicnn.errors import ShapeError
from minicnn.gradcheck import check_layer
from minicnn.layers import Layer, LayerPlan, Normal
from minicnn.train import SGD


class PReLU(Layer):
    """y = x where x > 0, else a * x, with one learned slope a for each channel (He et al., arXiv 1502.01852).

    dx = dy where x > 0, else a * dy;   da = sum of dy * x over the places where x <= 0. Saved: x.
    """

    channelwise = True                                  # a channel depends on that channel alone

    def __init__(self, channels: int, slope: float = 0.25):
        super().__init__()
        self.channels, self.slope = channels, slope

    def initial_values(self):                           # local parameter name -> (how it begins, shape)
        return {"a": (self.slope, (self.channels,))}

    def plan(self, in_shapes, dtype, ops):              # output shape, and what backward will ask for
        (shape,) = in_shapes
        if shape[-1] != self.channels:
            raise ShapeError(f"PReLU expects {self.channels} channels, got {shape[-1]}")
        return LayerPlan(tuple(shape), saves=("x",))

    def forward(self, ctx, xs, y, saved):               # write y
        y[...] = xs[0] * np.where(xs[0] > 0, 1, self.params["a"].data)

    def backward(self, ctx, dy, saved, dxs):            # add to the parameters' gradients, write dx
        x, a = saved["x"], self.params["a"]
        a.grad += (dy * x * (x <= 0)).reshape(-1, self.channels).sum(axis=0)
        if dxs[0] is not None:                          # None: nothing before this layer learns
            dxs[0][...] = dy * np.where(x > 0, 1, a.data)

    def kinks(self, y, saved):                          # where its slope jumps, for the gradient check
        return (saved["x"] > 0,)


class Forgetful(PReLU):
    """PReLU with a mistake: the gradient passes as if the slope were 1."""

    def backward(self, ctx, dy, saved, dxs):
        super().backward(ctx, dy, saved, dxs)
        dxs[0][...] = dy


def own_net(num_classes: int, device: str = "auto", dtype: str = "float32") -> Net:
    """One line per layer; where the line above is not the input, `input` names it."""
    b = Builder((96, 96, 3), name="own")
    b.conv("conv1", 16, 7, stride=4, padding=3, init=Normal(0.08))
    b.layer("act1", PReLU(16))
    pool = b.maxpool("pool1", 3, stride=2)
    near = b.conv("near", 16, 3, padding=1, init=Normal(0.1), input=pool)
    far = b.conv("far", 16, 5, padding=2, init=Normal(0.05), input=pool)
    b.concat("both", [near, far])
    b.layer("act2", PReLU(32))
    b.maxpool("pool2", 3, stride=2)
    b.flatten("flatten")
    b.dropout("drop", 0.5)
    b.linear("fc", num_classes, init=Normal(0.03))
    b.loss("loss")
    return b.net(seed=0, device=device, dtype=dtype)


def images_and_labels(dataset) -> tuple[np.ndarray, np.ndarray]:
    """The whole set as numbers of size about 1, float32 (N, 96, 96, 3), and labels (N,)."""
    return np.stack([dataset.read(i) for i in range(len(dataset))]).astype(np.float32) / 64 - 2, dataset.labels


def main() -> None:
    print("1. The gradient of PReLU, element by element, against finite differences:\n")
    print(check_layer(PReLU(3), [(2, 4, 5, 3)]).raise_if_failed())
    print("\n2. The same check of a PReLU that forgets its slope in the backward pass:\n")
    print(check_layer(Forgetful(3), [(2, 4, 5, 3)]))

    train, _, test = procedural_sets((800, 0, 200), size=96)
    (x, labels), (test_x, test_labels) = images_and_labels(train), images_and_labels(test)
    net = own_net(len(train.classes))
    print(f"\n3. A network that uses it:\n\n{net.summary(batch=32)}")

    print(f"\n4. Trained on {len(x)} images of {', '.join(train.classes)}; tested on {len(test_x)} others:\n")
    sgd, begin = SGD(net, lr=0.01, momentum=0.9, decay=0.0005), time.perf_counter()
    for epoch in range(6):
        order = np.random.default_rng(epoch).permutation(len(x))
        losses = []
        for ids in order.reshape(-1, 32):
            losses.append(net.loss(x[ids], labels[ids], sample_ids=ids, epoch=epoch))
            net.backward()
            sgd.step()
        logits = net.ops.to_host(net.forward(test_x))       # from a GPU's memory, where there is one
        accuracy = (logits.argmax(axis=1) == test_labels).mean()
        print(f"   epoch {epoch + 1}   loss {np.mean(losses):.3f}   test accuracy {accuracy:.1%}")
    slopes = net.ops.to_host(net.params["act1.a"].data)
    print(f"\n   {time.perf_counter() - begin:.1f} s; slopes of act1 went from 0.25 to "
          f"{slopes.min():.2f} .. {slopes.max():.2f}")


if __name__ == "__main__":
    try:
        main()
    except MinicnnError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
