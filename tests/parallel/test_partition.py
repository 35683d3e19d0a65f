"""A partitioned network computes the same as the original: AlexNet, and random graphs of all kinds of layers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from minicnn.builder import Builder
from minicnn.layers.activation import ReLU
from minicnn.layers.lrn import LRN
from minicnn.models.alexnet import alexnet, reduced_alexnet
from minicnn.models.cifar import cifar_paper
from minicnn.parallel import parallel_net as net_module
from minicnn.parallel.comm import RankError
from minicnn.parallel.parallel_net import SCHEMES, columns, shard_channels
from minicnn.parallel.threads import run_local
from minicnn.parallel.transfer import Transfer
from minicnn.train.recipe import SGDRecipe
from minicnn.visualize.columns import draw_columns
from tests.helpers.graphs import BY_IMAGE, images, random_net, recipes, scale_weights, small
from tests.parallel.split_layers import in_columns
from tests.parallel.training import displacement, train, train_on_ranks, weights

LIMIT = {"float64": 1e-9, "float32": 1e-3}
SMALLEST = {"input_size": 67, "kernels": (8, 8, 8, 8, 8), "fc": 16}


def tiny_alexnet(variant="paper", **changes):
    """All layers of AlexNet with a few channels each."""
    return scale_alexnet_weights(alexnet(variant, 6, **{**SMALLEST, "dtype": "float64", **changes}))


def scale_alexnet_weights(net):
    for name, param in net.params.items():
        if name.endswith(".w"):
            param.data[...] *= 8
    return net


def compare(make_net, scheme, size, x, labels, steps, **options):
    """Train in one process and on ranks; assert equal losses, weights and predictions."""
    alone = make_net()
    start = weights(alone)
    losses = train(alone, x, labels, steps, **options)
    limit, predicted = LIMIT[alone.dtype], alone.ops.to_host(alone.forward(x))
    results = train_on_ranks(make_net, scheme, size, x, labels, steps, **options)
    for own, _, logits in results:
        np.testing.assert_allclose(own, losses, rtol=limit)
        np.testing.assert_allclose(logits, predicted, rtol=limit, atol=limit * np.abs(predicted).max())
    apart = displacement(start, results[0][1], weights(alone))
    assert apart <= limit, f"{scheme}, {size} ranks: displacements differ by {apart:.2e}"


@pytest.mark.parametrize(("scheme", "size"), [("columns", 2), ("columns", 4), ("data", 2), ("data", 4), ("hybrid", 2),
                                              ("hybrid", 4), ("columns", 1), ("data", 1)])
def test_alexnet_on_ranks_equals_a_single_process(scheme, size):
    x, labels = images(tiny_alexnet(), 4)
    compare(tiny_alexnet, scheme, size, 10 * x, labels, 4)


@pytest.mark.parametrize("variant", ["authors", "caffe", "ungrouped", "torchvision"])
def test_other_alexnets(variant):
    """LRN over all channels needs a halo, ungrouped convolutions need all channels, and dropout may come first."""
    x, labels = images(tiny_alexnet(variant), 2)
    compare(lambda: tiny_alexnet(variant), "columns", 2, 10 * x, labels, 2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_float32_on_the_reference(scheme):
    def make():
        return small("reference", "float32")

    x, labels = images(make(), 4)
    compare(make, scheme, 2, x, labels, 5)


def test_locally_connected_layers_and_odd_numbers_of_ranks():
    def make():
        return scale_weights(cifar_paper(num_classes=4, input_size=12, dtype="float64"))

    x, labels = images(make(), 2)
    compare(make, "columns", 4, x, labels, 2)

    def three():
        b = Builder((6, 6, 2))
        b.conv("conv1", 9, 3)
        b.lrn("norm1", alpha=0.5)
        b.conv("depthwise", 9, 3, padding=1, groups=9)
        b.conv("conv2", 6, 3, groups=3)
        b.flatten()
        b.dropout("drop")
        b.linear("fc", 5)
        b.loss()
        return scale_weights(b.net(dtype="float64"))

    compare(three, "columns", 3, *images(three(), 3), 3)
    compare(three, "data", 3, *images(three(), 3), 3)


@settings(max_examples=25)
@given(recipe=recipes(BY_IMAGE), size=st.sampled_from([2, 2, 3]),
       scheme=st.sampled_from([*SCHEMES, "columns", "columns"]))
def test_random_graphs(recipe, size, scheme):
    """Every kind of layer, in any order, with forks, joins and several losses."""
    nodes, several_losses = recipe
    assume(any(kind in ("conv", "concat") for kind, _, _ in nodes))

    def make():
        return random_net((nodes, several_losses), width=6, device="reference", dtype="float64")

    x, labels = images(make(), size)
    compare(make, scheme, size, x, labels, 2)


@pytest.mark.parametrize(("device", "dtype"), [("reference", "float64"), ("cpu", "float64"), ("cpu", "float32")])
def test_columns_are_bit_identical(device, dtype):
    """With dx summed per column where columns exchange activations, a single process computes the same bits."""
    def make():
        return tiny_alexnet(device=device, dtype=dtype)

    x, labels = images(make(), 4)
    x *= 10
    alone = in_columns(make())
    losses = train(alone, x, labels, 4)
    (own, two, logits), _ = train_on_ranks(make, "columns", 2, x, labels, 4)
    assert own == losses
    np.testing.assert_array_equal(logits, alone.forward(x))
    for name, array in weights(alone).items():
        np.testing.assert_array_equal(two[name], array, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("scheme", "size"), [("columns", 2), ("data", 2), ("data", 4), ("hybrid", 2)])
def test_two_hundred_steps_of_the_reduced_net(scheme, size, dtype, photographs):
    """On photographs, with dropout."""
    def make():
        return reduced_alexnet(num_classes=2, dtype=dtype)

    x, labels = photographs(64, every=3)
    compare(make, scheme, size, x[:, :67, :67].astype(dtype), labels, 200, lr=0.001)


def test_gradient_communication_overlaps_with_the_backward_pass(monkeypatch):
    """Buckets are sent before earlier layers are computed; every gradient is in exactly one bucket."""
    monkeypatch.setattr(net_module, "BUCKET", 200)
    x, labels = images(tiny_alexnet(), 4)

    def body(comm):
        net, events = SCHEMES["data"](tiny_alexnet(), comm), []
        start, done = comm.start_all_reduce, net._gradients_done
        comm.start_all_reduce = lambda arrays, point: events.append(len(arrays)) or start(arrays, point)
        net._gradients_done = lambda node: done(node) or events.append(node.name)
        rows = net.ranks.local_rows(4)
        net.loss(x[rows], labels[rows])
        net.backward()
        return events, len(net.params)

    for events, params in run_local(2, body):
        buckets = [event for event in events if isinstance(event, int)]
        assert sum(buckets) == params and len(buckets) > 3
        assert events.index(buckets[0]) < events.index("conv5") < events.index("conv1")


def test_columns_communicate_exactly_where_the_paper_says():
    def body(comm):
        net = columns(tiny_alexnet(), comm)
        order = [node.name for node in net.nodes]
        before = {node.layer.point: order[order.index(node.name) + 1:][:1] for node in net.transfers}
        return before, {node.name: tuple(node.layer.params[local].data.shape for local in node.layer.params)
                        for node in net.nodes if node.layer.params}, order

    (first, shapes, order), (second, others, other_order) = run_local(2, body)
    assert first == {"conv3": ["conv3"], "fc6": ["fc6"], "fc7": ["fc7"], "fc8": ["fc8"]}
    assert second == {"conv3": ["conv3"], "fc6": ["fc6"], "fc7": ["fc7"], "fc8": []}
    assert "fc8" in shapes and "loss" in order and "fc8" not in others and "loss" not in other_order
    assert {name: shape for name, shape in shapes.items() if name != "fc8"} == others


def test_the_papers_columns():
    """48, 128, 192, 192 and 128 kernels, 2048 neurons, and the bytes exchanged before each layer at batch 128."""
    def body(comm):
        net = columns(net_of_the_paper, comm)
        plan = net.compile_plan(128, [*net.losses, net.output], (), grad=True)
        traffic = {step.node.layer.point: step.node.layer.traffic(plan.values[step.xs[0]].shape, 4)
                   for step in plan.steps if isinstance(step.node.layer, Transfer)}
        return {name: param.data.shape for name, param in net.params.items()}, traffic

    net_of_the_paper = alexnet()
    (shapes, traffic), (_, same) = run_local(2, body)
    assert [shapes[f"conv{i}.w"] for i in range(1, 6)] == [(11, 11, 3, 48), (5, 5, 48, 128), (3, 3, 256, 192),
                                                           (3, 3, 192, 192), (3, 3, 192, 128)]
    assert [shapes[f"fc{i}.w"] for i in (6, 7, 8)] == [(9216, 2048), (4096, 2048), (4096, 1000)]
    assert traffic == same == {"conv3": {(0, 1): 11_075_584, (1, 0): 11_075_584},
                               "fc6": {(0, 1): 2_359_296, (1, 0): 2_359_296},
                               "fc7": {(0, 1): 1_048_576, (1, 0): 1_048_576}, "fc8": {(1, 0): 1_048_576}}


def test_the_ledger_agrees_with_the_plan():
    x, labels = images(tiny_alexnet(), 4)

    def body(comm):
        net = columns(tiny_alexnet(), comm)
        train(net, x, labels, 3)
        net.forward(x)                                      # not a training step: not counted
        sent = {}
        for node in net.transfers:
            plan = net.compile_plan(4, [*net.losses, net.output], (), grad=True)
            step = next(step for step in plan.steps if step.node is node)
            traffic = node.layer.traffic(plan.values[step.xs[0]].shape, 8)
            sent[node.layer.point, "forward"] = traffic.get((comm.rank, 1 - comm.rank), 0)
            sent[node.layer.point, "backward"] = traffic.get((1 - comm.rank, comm.rank), 0)
        return sent, {(row["point"], row["direction"]): row["sent"] for row in comm.ledger.rows()}, comm.ledger.table()

    for expected, noted, table in run_local(2, body):
        assert noted == expected and len(noted) == 8
        assert "conv3" in table and "moving ms" in table


def test_the_drawing_agrees_with_the_plan(tmp_path):
    def body(comm):
        net = columns(tiny_alexnet(), comm)
        train(net, x, labels, 2)
        return net.drawing(4) if net.ranks.is_main else None

    x, labels = images(tiny_alexnet(), 4)
    layers, exchanges = run_local(2, body)[0]
    assert [(layer["name"], layer["shape"]) for layer in layers] == [
        ("image", (67, 67, 3)), ("conv1", (15, 15, 4)), ("conv2", (7, 7, 4)), ("conv3", (3, 3, 4)),
        ("conv4", (3, 3, 4)), ("conv5", (3, 3, 4)), ("fc6", (8,)), ("fc7", (8,)), ("fc8", (6,))]
    assert [layer["ranks"] for layer in layers][-2:] == [(0, 1), (0,)]
    assert exchanges["conv3"]["bytes"] == {(0, 1): 4 * 9 * 4 * 8, (1, 0): 4 * 9 * 4 * 8}
    assert exchanges["fc8"]["bytes"] == {(1, 0): 4 * 8 * 8}
    assert len(exchanges) == 4 and all(len(exchange["ms"]) == 2 for exchange in exchanges.values())
    path = draw_columns(layers, exchanges, tmp_path / "columns.png", "title", "subtitle")
    with Image.open(path) as picture:
        assert picture.size[0] >= 1200
    del exchanges["fc7"]["ms"]
    draw_columns(layers, exchanges, tmp_path / "columns.png")


def test_wrong_columns_are_found():
    """The comparison can fail: it does without the sum over columns in the backward pass of conv3."""
    class WithoutSum(Transfer):
        def _move(self, direction, source, target, have, want, adds):
            super()._move(direction, source, target, have, want, adds=False)

    def body(comm):
        net = columns(tiny_alexnet(), comm)
        next(node for node in net.transfers if node.layer.point == "conv3").layer.__class__ = WithoutSum
        train(net, x, labels, 2)
        return weights(net)

    x, labels = images(tiny_alexnet(), 4)
    alone = tiny_alexnet()
    start = weights(alone)
    train(alone, x, labels, 2)
    assert displacement(start, run_local(2, body)[0], weights(alone)) > 1e-3


def test_lrn_is_local_only_if_its_groups_align_with_ranks():
    def exchanges(**options):
        def body(comm):
            b = Builder((5, 5, 3))
            b.conv("conv1", 16, 3)
            b.lrn("norm1", n=5, **options)
            b.flatten()
            b.linear("fc", 4)
            b.loss()
            net = columns(b.net(), comm)
            return [(node.layer.point, node.layer.want[comm.rank].width) for node in net.transfers
                    if node.layer.point == "norm1"]
        return run_local(2, body)

    assert exchanges(groups=2) == [[], []]
    assert exchanges(groups=4) == [[], []]
    assert exchanges(groups=1) == [[("norm1", 10)], [("norm1", 10)]]         # its 8 channels and a halo of two


def test_errors_name_the_layer():
    def net(channels=6, groups=1, extra=None):
        b = Builder((5, 5, 2))
        b.conv("conv1", channels, 3, groups=groups)
        if extra:
            b.layer("extra", extra)
        b.flatten()
        b.linear("fc", 4)
        b.loss()
        return b.net()

    class Odd(ReLU):
        channelwise = False

    def build(make, size, scheme="columns"):
        return lambda: run_local(size, lambda comm: SCHEMES[scheme](make(), comm))

    with pytest.raises(RankError, match="layer 'conv1' of network 'net': 4 ranks do not divide its 6 kernels"):
        build(net, 4)()
    with pytest.raises(RankError, match="'extra' .*: there is no rule for splitting Odd by channels"):
        build(lambda: net(extra=Odd()), 2)()
    build(lambda: net(extra=Odd()), 2, "data")()
    with pytest.raises(RankError, match="layer 'fc6' .*: 3 ranks do not divide its 16 units"):
        build(tiny_alexnet, 3, "hybrid")()
    with pytest.raises(RankError, match="3 ranks do not divide a batch of 4 images; choose a multiple of 3, such as 3"):
        run_local(3, lambda comm: SCHEMES["data"](net(), comm).ranks.local_rows(4))
    with pytest.raises(RankError, match="nothing to partition"):
        def nothing():
            b = Builder((5, 5, 2))
            b.flatten()
            b.linear("fc", 4)
            b.loss()
            return b.net()
        build(nothing, 2)()

    def misuse(call):
        def body(comm):
            net = SCHEMES["columns"](small(), comm)
            x, labels = images(net)
            net.loss(x, labels)
            return call(net, x)
        return lambda: run_local(2, body)

    with pytest.raises(RankError, match=r"follows loss\(...\), without dy and other options"):
        misuse(lambda net, x: net.backward(input_grad=True))()
    with pytest.raises(RankError, match="is for inference only"):
        misuse(lambda net, x: net.forward(x, train=True))()
    with pytest.raises(RankError, match="rank 1 failed: rank 1 has no logits"):
        misuse(lambda net, x: net.logits)()


def test_ranks_must_have_equal_inputs():
    x, labels = images(small(), 4)

    def wrong_seed(comm):
        columns(small(seed=comm.rank), comm)

    def wrong_order(comm):
        columns(small(), comm).loss(x, labels[:: 1 - 2 * comm.rank])

    def same_images(comm):
        SCHEMES["data"](small(), comm).loss(x[:2], labels[:2], sample_ids=np.arange(2))

    with pytest.raises(RankError, match="rank 1 disagrees with rank 0 on the network"):
        run_local(2, wrong_seed)
    with pytest.raises(RankError, match="rank 1 disagrees with rank 0 on their labels"):
        run_local(2, wrong_order)
    with pytest.raises(RankError, match="rank 1 disagrees on the order of the images"):
        run_local(2, same_images)


def test_saved_files_are_unsharded(tmp_path):
    """Written by two ranks, read by one or four; a file that does not match changes nothing."""
    x, labels = images(small(), 4)

    def write(comm):
        net = columns(small(), comm)
        train(net, x, labels, 3)
        net.save(tmp_path / "two.safetensors")
        return net.forward(x)

    predicted = run_local(2, write)[0]
    alone = small(seed=9)
    alone.load(tmp_path / "two.safetensors")
    np.testing.assert_allclose(alone.forward(x), predicted, rtol=1e-9)

    def read(comm):
        net = SCHEMES["data"](small(seed=9), comm)
        net.load(tmp_path / "two.safetensors")
        return net.forward(x)

    np.testing.assert_allclose(run_local(4, read)[3], predicted, rtol=1e-9)
    other = reduced_alexnet()
    with pytest.raises(RankError, match="is of another network: 'conv1.w' is"):
        run_local(2, lambda comm: shard_channels(other, comm).load(tmp_path / "two.safetensors"))


def test_lrn_with_groups_that_do_not_align_with_ranks():
    """Three groups on two ranks: all channels are gathered, and the rank's channels of the result selected."""
    def make():
        b = Builder((4, 4, 2))
        b.conv("conv1", 12, 3)
        b.layer("norm1", LRN(3, alpha=0.5, groups=3))
        b.flatten()
        b.linear("fc", 4)
        b.loss()
        return scale_weights(b.net(dtype="float64"))

    compare(make, "columns", 2, *images(make(), 2), 2)


def test_a_recipe_may_name_parameters_of_any_rank():
    """In columns, rank 0 alone has the last layer."""
    found = run_local(2, lambda comm: SGDRecipe(layer_lr={"fc4.w": 0.5}).lr_mults(columns(small("reference"), comm)))
    assert found[0]["fc4.w"] == 0.5 and "fc4.w" not in found[1]
