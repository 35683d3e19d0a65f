"""Captured steps do what steps do that the host waits for, bit for bit; and steps in fp16, whose loss is scaled.

On the emulated GPU, where a captured launch is addresses and nothing else, as on a real one.
"""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from minicnn.errors import ConfigError, DataError, DeviceError
from minicnn.evaluate.metrics import RunningMetrics
from minicnn.train import loop
from minicnn.train.adam import Adam, AdamW
from minicnn.train.average import WeightAverage
from minicnn.train.loss_scale import LossScale
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.sgd import SGD
from minicnn.train.step import READ_EVERY, CapturedStep, captured_step
from tests.cuda_emulator.build import EmulatorError, why_not
from tests.cuda_emulator.device import emulated_ops
from tests.helpers.small_run import small_net, small_recipe, small_trainer

BATCH, CLASSES = 4, 4


@pytest.fixture(params=["Tf32", "Fp16"])
def products(request):
    return request.param


@pytest.fixture
def make_emulated(cuda_cache):
    """make(products): a small net on an emulated GPU, whose arrays are NumPy's."""
    if why_not():
        pytest.skip(why_not())

    def make(products="Tf32"):
        net = small_net("reference")
        net.ops = emulated_ops(cuda_cache, "v4" if products == "Fp16" else "v3", products, watch=False)
        return net
    return make


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.cuda)])
def make_net(request):
    """The same, and on a GPU."""
    if request.param == "emulated":
        return request.getfixturevalue("make_emulated")
    return lambda products="Tf32": small_net("cuda:fp16" if products == "Fp16" else "cuda:fp32")


class PlainStep:
    """The lines of the training loop, each waited for."""

    def __init__(self, net, optimiser, loss_scale, metrics):
        self.net, self.optimiser, self.loss_scale, self.metrics = net, optimiser, loss_scale, metrics

    def run(self, x, labels, sample_ids, epoch):
        self.loss = self.net.loss(x, labels, sample_ids=sample_ids, epoch=epoch)
        self.metrics.add(self.loss, self.net.ops.to_host(self.net.logits), labels)
        self.net.backward(loss_scale=self.loss_scale.state if self.loss_scale else None)
        self.optimiser.step(self.net.ops, self.loss_scale)

    def read(self):
        return self.loss, self.metrics


def batch(step: int, count: int = BATCH):
    """Images, labels and sample ids: others with every step."""
    rng = np.random.default_rng(step)
    return (rng.standard_normal((count, 24, 24, 3)).astype("f4"), rng.integers(0, CLASSES, count),
            rng.permutation(1000)[:count].astype(np.uint32))


def make_step(kind, net, exponent=16, optimiser=None):
    scale = LossScale(net.ops, exponent) if net.ops.needs_loss_scale else None
    return kind(net, optimiser or SGD(net.params, lr=0.01), scale, RunningMetrics())


def state_of(step) -> list[np.ndarray]:
    """All that a step changes."""
    arrays = [param.data for param in step.net.params.values()]
    arrays += [array for slot in step.optimiser.arrays.values() for array in slot.values()]
    arrays += [] if step.optimiser.average is None else list(step.optimiser.average.arrays.values())
    arrays += [] if step.loss_scale is None else [step.loss_scale.state]
    return [np.array(step.net.ops.to_host(array)) for array in arrays]


def weights_of(net) -> dict[str, np.ndarray]:
    return {name: np.array(net.ops.to_host(param.data)) for name, param in net.params.items()}


def images_for(step):
    """Where a step finds its images."""
    return step.net.ops.empty((BATCH, 24, 24, 3), "float32")


def take(step, x, number: int, between=None) -> None:
    for i in range(number):
        images, labels, ids = batch(i)
        x[...] = step.net.ops.from_host(images)
        step.optimiser.lr = 0.01 / (1 + i)
        step.run(x, labels, ids, epoch=i // 2)
        if between:
            between(i, step.net)


def test_captured_steps_are_the_same_steps(make_net, products):
    steps = [make_step(kind, make_net(products)) for kind in (PlainStep, CapturedStep)]
    for step in steps:
        take(step, images_for(step), 5)
    for plain, captured in zip(*map(state_of, steps), strict=True):
        np.testing.assert_array_equal(captured, plain)
    (loss, metrics), (captured_loss, captured_metrics) = (step.read() for step in steps)
    assert captured_loss == loss
    assert captured_metrics.state() == pytest.approx(metrics.state(), rel=1e-6) and metrics.images == 5 * BATCH
    if products == "Fp16":
        assert steps[1].loss_scale.to_dict() == {"exponent": 16, "good": 5, "left_out": 0}


OPTIMISERS = {"pytorch": lambda net: SGD(net, lr=0.01, lr_in_velocity=False, nesterov=True, decoupled=True),
              "filters": lambda net: SGD(net, lr=0.01, filter_rms=0.005),
              "adam": lambda net: Adam(net, decay=0.1), "adamw": lambda net: AdamW(net, decay=0.1)}


@pytest.mark.parametrize("name, products", [("pytorch", "Tf32"), ("filters", "Fp16"), ("adam", "Tf32"),
                                            ("adamw", "Fp16")])
def test_captured_steps_of_every_optimiser(make_net, name, products):
    """With an average. In fp16 the scale is too large at first: captured steps that are skipped are not counted."""
    steps, taken = [], 6
    for kind in (PlainStep, CapturedStep):
        net = make_net(products)
        optimiser = OPTIMISERS[name](net)
        optimiser.average = WeightAverage(net, 0.6)
        steps.append(make_step(kind, net, 22, optimiser))
        take(steps[-1], images_for(steps[-1]), taken)
    for plain, captured in zip(*map(state_of, steps), strict=True):
        np.testing.assert_array_equal(captured, plain)
    skipped = steps[1].loss_scale.to_dict()["left_out"] if products == "Fp16" else 0
    assert 3 <= skipped < taken or products != "Fp16"
    for step in steps:
        assert step.optimiser.average.to_dict() == {"steps": taken - skipped}
        assert step.optimiser.to_dict().get("steps", taken - skipped) == taken - skipped


def test_a_captured_step_is_a_single_launch(make_emulated):
    """All launches from the third step on come from the CUDA graph: the host calls no operation."""
    net = make_emulated()
    step = make_step(CapturedStep, net)
    x = images_for(step)
    take(step, x, 2)

    def forbidden(*arguments, **options):
        raise AssertionError("launched by the host")

    net.ops._gpu.launch = forbidden
    before = net.ops.device.launches
    take(step, x, 2)
    assert net.ops.device.launches > before + 40


def test_arrays_that_move_are_captured_anew(make_net):
    """A larger batch in between, as in validation, takes the place of the arrays that the graph knows."""
    results = []
    for kind in (PlainStep, CapturedStep):
        net = make_net()
        step = make_step(kind, net)
        larger = [net.ops.to_host(net.forward(batch(9, 3 * BATCH)[0])), None]

        def between(i, net, larger=larger):
            if i == 3:
                larger[1] = net.ops.to_host(net.forward(batch(9, 5 * BATCH)[0], keep=("conv1", "pool1")))

        x = images_for(step)
        take(step, x, 6, between)
        take(step, x.copy(), 3)                             # images that lie elsewhere
        results.append([*state_of(step), *larger])
    for plain, captured in zip(*results, strict=True):
        np.testing.assert_array_equal(captured, plain)


def test_memory_that_was_replaced_is_let_go(make_emulated):
    """A captured graph keeps its arrays: so it must not outlive the arrays' use, or there would be two of each."""
    net = make_emulated()
    step = make_step(CapturedStep, net)
    x = images_for(step)
    take(step, x, 3)
    old = weakref.ref(net._arena)
    net.forward(batch(9, 5 * BATCH)[0], keep=("conv1", "pool1"))
    assert old() is not None
    take(step, x, 1)
    gc.collect()
    assert old() is None


def test_a_captured_graph_keeps_its_arrays(make_emulated):
    """The host lets go of every array of the step; the memory is nobody else's all the same."""
    net = make_emulated()
    ops, y = net.ops, np.zeros(8, "f4")
    xs = [np.arange(8, dtype="f4")]
    replay = ops.capture(lambda: ops.relu_forward(xs[0], y))
    assert not y.any()                                      # nothing has run yet
    xs[0] -= 4
    replay()
    np.testing.assert_array_equal(y, [0, 0, 0, 0, 0, 1, 2, 3])
    xs.clear()
    replay()
    without = ops.device.capture(lambda: ops.relu_forward(np.ones(8, "f4"), y))
    with pytest.raises(EmulatorError, match="relu_forward: x, captured, has been freed"):
        without()


def test_what_the_host_would_do_is_refused_while_capturing(make_net):
    net = make_net()
    x, labels, ids = batch(0)
    with pytest.raises((EmulatorError, DeviceError), match="copied .* while a step was being captured"):
        net.ops.capture(lambda: net.loss(x, labels, sample_ids=ids))
    assert np.isfinite(net.loss(x, labels, sample_ids=ids))                    # and nothing is left behind


def test_labels_are_checked_before_the_step(make_net):
    net = make_net()
    x, _, ids = batch(0)
    with pytest.raises(Exception, match=r"labels must lie in 0..3, got 0..4"):
        make_step(CapturedStep, net).run(x, np.array([0, 4, 1, 2]), ids, 0)


# ---- fp16
def test_an_overflow_leaves_out_the_step_and_halves_the_scale(make_net):
    """A scale far too large: gradients are infinite until it has fallen far enough; the weights never see them."""
    net = make_net("Fp16")
    step = make_step(CapturedStep, net, exponent=24)
    x, start, exponents = images_for(step), weights_of(net), []
    for i in range(12):
        images, labels, ids = batch(i)
        x[...] = net.ops.from_host(images)
        before, left_out = weights_of(net), step.loss_scale.to_dict()["left_out"]
        step.run(x, labels, ids, 0)
        scale = step.loss_scale.to_dict()
        assert differ(weights_of(net), before) == (scale["left_out"] == left_out)
        exponents.append(scale["exponent"])
    assert exponents[0] == 23 and exponents[-1] < 23 and exponents == sorted(exponents, reverse=True)
    assert 0 < scale["left_out"] < 12 and all(np.isfinite(array).all() for array in weights_of(net).values())
    assert differ(weights_of(net), start)


def differ(weights: dict, others: dict) -> bool:
    return any((weights[name] != others[name]).any() for name in weights)


def test_gradients_too_small_for_fp16_are_saved_by_the_scale(make_net):
    """A loss of weight 1e-5: unscaled, what reaches the first layer is rounded to nothing or to few bits."""

    def first_gradient(products, exponent):
        net = make_net(products)
        next(node.layer for node in net.nodes if node.layer.is_loss).weight = 1e-5
        x, labels, ids = batch(0)
        net.loss(x, labels, sample_ids=ids, epoch=0)
        scale = LossScale(net.ops, exponent)
        net.backward(loss_scale=scale.state if exponent else None)
        return net.ops.to_host(net.params["conv1.w"].grad) / 2.0**exponent

    exact = first_gradient("Tf32", 0)                       # the registers' version, which does not round
    errors = [np.linalg.norm(first_gradient("Fp16", exponent) - exact) / np.linalg.norm(exact) for exponent in (0, 16)]
    assert errors[1] < 0.01 < 0.1 < errors[0]


def test_ranks_are_refused_where_the_loss_must_be_scaled(make_net, tmp_path):
    net = make_net("Fp16")
    net.ranks.is_split = True
    with pytest.raises(ConfigError, match="cuda:fp16 scales the loss by what one rank sees.*use cuda:tf32"):
        small_trainer(tmp_path / "run", net=net)


def test_which_steps_are_captured(make_net):
    ranks, own = make_net(), make_net()
    ranks.ranks.is_split = True
    own.nodes[1].layer.capturable = False                   # as of a layer that somebody wrote for himself
    for net, captured in ((make_net(), True), (ranks, False), (own, False), (small_net("reference"), False),
                          (small_net("cpu"), False)):
        assert (captured_step(net, SGD(net, lr=0.1), None, RunningMetrics()) is not None) == captured


def test_a_layer_that_cannot_be_captured_is_named(make_net, tmp_path):
    net, said = make_net(), []
    net.nodes[2].layer.capturable = False
    small_trainer(tmp_path / "run", images=16, net=net, say=said.append).fit(1)
    assert any("are launched one operation after the other: layer 'norm1' cannot be captured" in line for line in said)


def test_the_host_is_never_far_ahead(make_emulated):
    """It waits for the step before the last one, so that its queue of batches is not emptied by steps under way."""
    net = make_emulated()
    step, events = make_step(CapturedStep, net), []

    def record_event():
        here = sum(what == "mark" for what, _ in events)
        events.append(("mark", here))
        return lambda: events.append(("wait", here))

    net.ops.record_event = record_event
    take(step, images_for(step), 5)
    assert events == [("mark", 0), ("mark", 1), ("wait", 0), ("mark", 2), ("wait", 1), ("mark", 3), ("wait", 2),
                      ("mark", 4)]


# ---- in a run
def test_a_run_on_captured_steps_resumes_bit_for_bit(make_net, products, tmp_path):
    """Interrupted within an epoch, which has fewer steps than READ_EVERY, and resumed: weights, scale, counts."""
    def trainer(folder, **options):
        return small_trainer(tmp_path / folder, images=32, net=make_net(products), **options)

    assert READ_EVERY > 4
    whole = trainer("whole")
    whole.fit(2)
    first = trainer("cut", save_every=2)

    def cut(*arguments, **options):
        if first.epoch == 1 and first.step == 2:
            save(*arguments, **options)
            raise KeyboardInterrupt
        save(*arguments, **options)

    save, first.save = first.save, cut
    with pytest.raises(KeyboardInterrupt):
        first.fit(2)
    second = trainer("cut").resume()
    assert (second.epoch, second.step) == (1, 2)
    second.fit(2)
    assert not differ(weights_of(second.net), weights_of(whole.net))
    for name, velocity in whole.sgd.velocities.items():
        np.testing.assert_array_equal(*(net.ops.to_host(array) for net, array in (
            (second.net, second.sgd.velocities[name]), (whole.net, velocity))))
    assert second.state.metrics.state() == whole.state.metrics.state()
    if products == "Fp16":
        scales = [trainer.state.loss_scale.to_dict() for trainer in (second, whole)]
        assert scales == 2 * [{"exponent": 16, "good": 8, "left_out": 0}]


def test_a_batch_that_cannot_be_made_loses_no_count(make_net, tmp_path, monkeypatch):
    """The device is ahead of what was read when an image turns out to be gone: the checkpoint counts every step."""
    monkeypatch.setattr(loop, "DIAGNOSE_EVERY", 10**9)
    trainer = small_trainer(tmp_path / "run", images=2 * 240, net=make_net(), recipe=small_recipe(batch=2))
    assert len(trainer.loader) >= 200                       # else each step is logged, and read for that
    batches = trainer.loader.epoch

    def broken(*position):
        for number, batch in enumerate(batches(*position)):
            if number == 7:
                raise DataError("an image is gone")
            yield batch

    trainer.loader.epoch = broken
    trainer.state.new_loader = lambda: trainer.loader
    with pytest.raises(DataError, match="an image is gone"):
        trainer.fit(1)
    meta = load_checkpoint(trainer.last_path).meta
    assert meta["step"] == 7 and meta["tally"]["images"] == 14
