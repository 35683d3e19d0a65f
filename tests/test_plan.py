"""Memory: arrays with overlapping lifetimes never overlap, and sharing memory changes no bit, on random graphs."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn import plan as plan_module
from minicnn.arena import ALIGNMENT, Storage, pack
from minicnn.backend.select import get_ops
from minicnn.builder import Builder
from minicnn.graph import LABELS
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from minicnn.layers.dropout import Dropout
from minicnn.plan import Plan
from tests.helpers.graphs import gradients, images, random_net, recipes, same, scale_weights, small


def compiled(net, batch=4, grad=True, keep=(), fuse=None) -> Plan:
    inputs = {name: ((batch, *shape), net.dtype) for name, shape in net.inputs.items()} | {LABELS: ((batch,), "int32")}
    return Plan(net.nodes, inputs, [*net.losses, net.output], ops=net.ops, dtype=net.dtype, grad=grad,
                fuse=net.fuse if fuse is None else fuse, keep=keep)


def accesses(plan: Plan):
    """(time, value) of every array that a step reads or writes, in execution order."""
    time = 0
    for step in plan.steps:
        for value in (*step.xs, step.y, *step.buffers.values(), step.work):
            yield time, value
        time += 1
    for step in reversed(plan.steps if plan.grad else []):
        if source := step.source:
            saved = [step.again, source.xs[0], *source.buffers.values()]
        else:
            saved = step.xs[:1] * ("x" in step.saves) + step.xs * ("xs" in step.saves)
        saved += [step.y] * ("y" in step.saves)
        for value in (*saved, *step.buffers.values(), step.work_back, step.dy, *step.dxs):
            yield time, value
        for pair in step.sums:
            yield from ((time, value) for value in pair)
        time += 1


def check_no_overlap(plan: Plan) -> None:
    """Lifetimes are derived from the accesses of the steps, not from the plan's own lifetimes."""
    lives: dict[int, list[int]] = {}
    storages = {}
    for time, value in accesses(plan):
        if value is not None:
            storage = plan.values[value].storage
            storages[id(storage)] = storage
            lives.setdefault(id(storage), []).append(time)
    inside = [(storages[key], min(times), max(times)) for key, times in lives.items()
              if not storages[key].outside]
    for i, (a, a_first, a_last) in enumerate(inside):
        assert a.offset + a.nbytes <= plan.arena_bytes
        for b, b_first, b_last in inside[:i]:
            if a_first <= b_last and b_first <= a_last:
                assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset


@settings(max_examples=40)
@given(recipe=recipes())
def test_arrays_with_overlapping_lifetimes_do_not_overlap(recipe):
    net = random_net(recipe, device="reference")
    for grad in (False, True):
        for fuse in (False, True):
            check_no_overlap(compiled(net, grad=grad, fuse=fuse))
    with computing_again():
        check_no_overlap(compiled(net))


def test_memory_is_reused():
    """Inference needs little more than its two largest consecutive arrays; training must keep most activations."""
    net = small(device="reference")
    for grad in (False, True):
        plan = compiled(net, grad=grad, batch=64)
        everything = sum(storage.nbytes for storage in plan.storages if not storage.outside)
        assert plan.arena_bytes < (0.9 if grad else 0.75) * everything


@contextlib.contextmanager
def computing_again():
    """Inside, plans of the reference backend do not keep outputs of batch normalisation for the backward pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(get_ops("reference"), "fusions", frozenset({"again"}))
        yield


def residual(**options):
    """Two blocks, one with a shortcut by convolution, and one output of batch normalisation that two layers read."""
    b = Builder((6, 6, 3))
    b.conv("conv1", 4, 3, padding=1, bias=False)
    b.batchnorm("bn1")
    b.relu("relu1")
    for i, stride in ((2, 2), (3, 1)):
        start = b.last
        b.conv(f"conv{i}a", 8, 3, stride=stride, padding=1, bias=False)
        b.batchnorm(f"bn{i}a")
        b.relu(f"relu{i}a")
        b.conv(f"conv{i}b", 8, 3, padding=1, bias=False)
        b.batchnorm(f"bn{i}b")
        short = b.conv(f"short{i}", 8, 1, stride=stride, input=start) if i == 2 else start
        b.add(f"add{i}", [f"bn{i}b", short])
        b.relu(f"relu{i}b")
    b.global_avgpool("pool")
    b.batchnorm("last")
    b.linear("out", 3)
    b.loss("loss")
    return scale_weights(b.net(device="reference", dtype="float64", seed=3, **options))


def branches(**options):
    """Outputs of batch normalisation that are joined, pooled, or both read by a convolution and pooled."""
    b = Builder((6, 6, 3))
    b.conv("conv1", 4, 3, padding=1, bias=False)
    b.batchnorm("bn1")
    start = b.relu("relu1")
    b.conv("left", 5, 3, padding=1, bias=False)
    b.batchnorm("bnl")
    left = b.relu("relul")
    b.maxpool("pool1", 3, stride=1, padding=1, input=start)
    b.conv("right", 2, 1, bias=False)
    b.batchnorm("bnr")
    b.concat("join", [left, b.relu("relur")])
    b.conv("conv2", 6, 1, bias=False)
    b.batchnorm("bn2")
    b.avgpool("pool2", 2)
    b.batchnorm("last")
    b.global_avgpool("pool3")
    b.linear("out", 3)
    b.loss("loss")
    return scale_weights(b.net(device="reference", dtype="float64", seed=3, **options))


def test_where_no_x_is_read_none_is_computed_again():
    """Concat and poolings read no x in backward: their inputs are neither kept nor made once more."""
    plain = branches(fuse=False)
    with computing_again():
        net = branches()
        plan = compiled(net)
        assert {step.node.name for step in plan.steps if step.gone} == {"bn1", "bnl", "bnr", "bn2", "last"}
        assert {step.node.name for step in plan.steps if step.again is not None} == {"left"}
        check_no_overlap(plan)
        same(step(net), step(plain))
    assert plan.arena_bytes < compiled(branches()).arena_bytes


def test_what_is_computed_again():
    """Outputs of batch normalisation with which no Add is fused."""
    plain = residual(fuse=False)
    x, labels = images(plain)

    def doubled(layer, dy, saved):
        return 2 * dy * (saved["y"] > 0)

    def found(net, **options):
        net.loss(x, labels)
        with_rules = net.backward(input_grad=True, **options)
        return {"dx": with_rules["image"] if isinstance(with_rules, dict) else with_rules, **gradients(net)}

    with computing_again():
        net = residual()
        plan = compiled(net)
        assert {step.node.name for step in plan.steps if step.gone} == {"bn1", "bn2a", "bn2b", "bn3a", "last"}
        takers = {step.node.name for step in plan.steps if step.again is not None}
        assert takers == {"conv2a", "short2", "conv2b", "conv3b", "out"}
        check_no_overlap(plan)
        assert not any(step.gone for step in compiled(net, keep=["relu1"]).steps if step.node.name == "bn1")
        for options in ({}, {"rules": {"ReLU": doubled}}, {"wrt": ["bn2a", "relu3b"]}):
            same(found(net, **options), found(plain, **options))
    assert plan.arena_bytes < 0.9 * compiled(residual()).arena_bytes


class Halved(BatchNorm2d):
    """Its output is not that of BatchNorm2d."""

    def forward(self, ctx, xs, y, saved):
        super().forward(ctx, xs, y, saved)
        y *= 0.5

    def backward(self, ctx, dy, saved, dxs):
        super().backward(ctx, 0.5 * dy, saved, dxs)


class WithoutX(Affine):
    """Keeps nothing for a backward pass that gives dx alone."""

    def plan(self, in_shapes, dtype, ops):
        return dataclasses.replace(super().plan(in_shapes, dtype, ops), saves=())

    def backward(self, ctx, dy, saved, dxs):
        dxs[0][...] = dy * self.params["w"].data


@pytest.mark.parametrize("kind", [Halved, WithoutX])
def test_a_layer_of_ones_own_is_not_computed_again(kind):
    """Unless it says how."""
    found = []
    for fusions in (frozenset(), frozenset({"again"})):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(get_ops("reference"), "fusions", fusions)
            b = Builder((6, 6, 3))
            b.conv("conv1", 4, 3, padding=1, bias=False)
            b.layer("own", kind(4))
            b.conv("conv2", 4, 3)
            b.flatten("flat")
            b.linear("fc", 3)
            b.loss("loss")
            found.append(step(scale_weights(b.net(device="reference", dtype="float64", seed=1))))
    same(*found)


class Noisy(Affine):
    """Its output depends on its own random numbers."""

    computes_again = True

    def forward(self, ctx, xs, y, saved):
        self.compute_again(ctx, {"x": xs[0]}, y)

    def compute_again(self, ctx, saved, y):
        ctx.ops.dropout_forward(saved["x"], y, **Dropout(0.5).draw(ctx))

    def backward(self, ctx, dy, saved, dxs):
        ctx.ops.dropout_backward(dy, dxs[0], **Dropout(0.5).draw(ctx))


def test_random_numbers_are_the_same_when_computed_again():
    """Those of the layer that is computed again, not of the one that needs it."""
    def net():
        b = Builder((6, 6, 3))
        b.conv("conv1", 4, 3)
        b.layer("noisy", Noisy(4))
        b.conv("conv2", 4, 3)
        b.flatten("flat")
        b.linear("fc", 3)
        b.loss("loss")
        return scale_weights(b.net(device="reference", dtype="float64", seed=1))

    plain = step(net())
    with computing_again():
        assert [step.node.name for step in compiled(net()).steps if step.gone] == ["noisy"]
        same(step(net()), plain)


def without_sharing(storages) -> int:
    """Every storage has its own memory."""
    offset = 0
    for storage in storages:
        storage.offset, offset = offset, offset + -(-storage.nbytes // ALIGNMENT) * ALIGNMENT
    return offset


def step(net, **options) -> dict[str, np.ndarray]:
    """Loss, logits and all gradients of one training step."""
    x, labels = images(net)
    loss = net.loss(x, labels, sample_ids=[4, 2, 9], epoch=1, **options)
    result = {"loss": np.float64(loss), "logits": net.logits, "dx": net.backward(input_grad=True)}
    return result | gradients(net)


@settings(max_examples=40)
@given(recipe=recipes())
def test_sharing_and_fusing_change_no_bit(recipe):
    """The same step with memory shared and ReLUs fused, and with neither."""
    optimised = random_net(recipe, device="reference", dtype="float64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "pack", without_sharing)
        patch.setattr(Plan, "_may_overwrite", lambda *args: False)
        plain = step(random_net(recipe, device="reference", dtype="float64", fuse=False))
    same(step(optimised), plain)
    same(step(optimised, keep=[node.name for node in optimised.nodes][::2]), plain)
    with computing_again():
        again = random_net(recipe, device="reference", dtype="float64")
        same(step(again), plain)
        same(step(again, keep=[node.name for node in again.nodes][::2]), plain)


def test_a_training_step_allocates_nothing_of_size(monkeypatch):
    """After the first step, the network allocates no memory from its backend."""
    net = small(device="reference")
    x, labels = images(net)
    net.loss(x, labels)
    net.backward()

    def refuse(*args):
        raise AssertionError(f"allocates {args}")
    monkeypatch.setattr(net.ops, "empty", refuse, raising=True)
    net.loss(x, labels)
    net.backward()
    net.loss(x[:2], labels[:2])
    net.backward()


def test_workspace_of_a_batch_suffices_for_smaller_ones(ops):
    """Smaller batches run in the workspace of the largest."""
    for x_shape, w_shape, options in [
        ((32, 14, 13, 6), (3, 3, 3, 8), {"stride": (1, 1), "pads": (1, 1, 1, 1), "groups": 2}),
        ((16, 31, 31, 3), (11, 11, 3, 16), {"stride": (4, 4), "pads": (0, 0, 0, 0), "groups": 1}),
    ]:
        sizes = [ops.conv_work((batch, *x_shape[1:]), w_shape, "float32", **options)
                 for batch in range(1, x_shape[0] + 1)]
        assert max(sizes) == sizes[-1]
    sizes = [ops.linear_work((batch, 700), (700, 90), "float32") for batch in range(1, 130)]
    assert max(sizes) == sizes[-1]


def first_fit(storages) -> int:
    """Offsets by comparing each storage with each that is placed, in the order of their offsets."""
    placed = []
    for storage in sorted(storages, key=lambda s: (-s.nbytes, s.birth)):
        offset = 0
        for other in sorted(placed, key=lambda s: s.offset):
            if storage.birth <= other.death and other.birth <= storage.death and other.offset < offset + storage.nbytes:
                offset = max(offset, -(-(other.offset + other.nbytes) // 256) * 256)
        storage.offset = offset
        placed.append(storage)
    return max((storage.offset + storage.nbytes for storage in placed), default=0)


@given(lives=st.lists(st.tuples(st.sampled_from([0, 1, 256, 257, 4096, 5000]), st.integers(0, 20), st.integers(0, 10)),
                      max_size=40))
def test_every_array_is_at_the_first_offset_that_is_free(lives):
    ours, naive = ([Storage(nbytes, birth, birth + length) for nbytes, birth, length in lives]
                   for _ in range(2))
    assert pack(ours) == first_fit(naive)
    assert [storage.offset for storage in ours] == [storage.offset for storage in naive]
