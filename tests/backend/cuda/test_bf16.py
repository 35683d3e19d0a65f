"""Activations stored in bf16: every operation rounds its exact result once; a network learns as in float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minicnn.backend.ops import OPS
from minicnn.backend.select import get_ops
from minicnn.errors import ConfigError, ShapeError
from minicnn.evaluate.metrics import RunningMetrics
from minicnn.layers.activation import ReLU
from minicnn.layers.batchnorm import BatchNorm2d
from minicnn.layers.combine import Add, Concat
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.layers.linear import Linear
from minicnn.layers.lrn import LRN
from minicnn.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from minicnn.train.sgd import SGD
from minicnn.train.step import CapturedStep
from tests.cuda_emulator.build import EmulatorError, why_not
from tests.cuda_emulator.device import emulated_ops
from tests.helpers.bf16 import WITHOUT, Checked, to_bf16
from tests.helpers.cuda_mistakes import plant
from tests.helpers.small_run import small_net, small_trainer
from tests.test_mutations import CASES, Layer, Values

HAS_NO_ACTIVATIONS = ("sgd", "sgd_forms", "rms_limit", "adam", "scaled_adam", "ema", "scaled_ema", "overflow", "scales",
                      "batchnorm_running", "fork", "scaled_step")
# With channels that are read four at a time.
PACKED = {
    "conv": Layer(lambda: Conv2d(8, 16, 3, stride=2, padding=1), [(2, 5, 6, 8)]),
    "conv, groups": Layer(lambda: Conv2d(8, 8, 3, groups=2), [(2, 5, 4, 8)], {"relu": True}),
    "conv, depthwise": Layer(lambda: Conv2d(8, 8, 3, padding=1, groups=8), [(2, 5, 4, 8)]),
    "linear": Layer(lambda: Linear(20, 12), [(5, 20)], {"relu": True}),
    "relu": Layer(ReLU, [(3, 20)]),
    "maxpool": Layer(lambda: MaxPool2d(3, stride=2), [(2, 7, 7, 8)]),
    "avgpool": Layer(lambda: AvgPool2d(3, stride=2, padding=1), [(2, 5, 5, 8)]),
    "global_avgpool": Layer(GlobalAvgPool2d, [(2, 3, 4, 8)]),
    "lrn": Layer(lambda: LRN(5, alpha=1.0, groups=2), [(2, 3, 3, 16)]),
    "batchnorm": Layer(lambda: BatchNorm2d(8), [(4, 2, 3, 8)] * 2, {"relu": True}),
    "dropout": Layer(lambda: Dropout(0.3, inverted=True), [(4, 12)]),
    "concat": Layer(Concat, [(2, 2, 2, 4), (2, 2, 2, 8)]),
    "add": Layer(Add, [(2, 2, 2, 4)] * 2),
}


def lrn_packed(ops, rng):
    """LRN with what is fused into it, of eight channels."""
    x, db = np.maximum(rng.standard_normal((2, 5, 5, 8)), 0), rng.standard_normal(8)
    constants, window = {"n": 5, "k": 1.0, "alpha": 1.0, "beta": 0.75}, {"kernel": (3, 3), "stride": (2, 2)}
    y, argmax, dx = np.empty((2, 2, 2, 8)), np.empty((2, 2, 2, 8), np.uint8), np.empty_like(x)
    ops.lrn_maxpool_forward(x, y, argmax, **constants, **window, pads=(0, 0, 0, 0))
    ops.lrn_maxpool_backward(x, rng.standard_normal(y.shape), argmax, dx, db, relu=True, **constants, **window,
                             pads=(0, 0, 0, 0))
    ops.lrn_backward(x, rng.standard_normal(x.shape), dx, db, relu=True, **constants)
    return [dx]


def accumulated(ops, rng):
    y = rng.standard_normal((3, 5))
    ops.accumulate(rng.standard_normal((3, 5)), y)
    return [y]


def in_slices(ops, rng):
    """Long sums, whose parts are added up in float32 before anything is rounded."""
    y, dx, dw = np.empty((6, 36)), np.empty((6, 36)), rng.standard_normal((8, 12))
    ops.linear_forward(rng.standard_normal((6, 4096)), rng.standard_normal((4096, 36)), y,
                       epilogue=(rng.standard_normal(36), True))
    ops.linear_backward_data(rng.standard_normal((6, 4096)), rng.standard_normal((36, 4096)), dx)
    ops.linear_backward_weights(rng.standard_normal((4096, 8)), rng.standard_normal((4096, 12)), dw)
    return [y, dx, dw]


PACKED |= {"lrn_maxpool": Values(lrn_packed), "accumulate": Values(accumulated), "linear, slices": Values(in_slices)}
CHECKED = {name: case for name, case in CASES.items() if name not in HAS_NO_ACTIVATIONS}
CHECKED |= {f"{name}, packed": case for name, case in PACKED.items()}
PRODUCTS = {name: case for name, case in CHECKED.items() if name.startswith(("conv", "linear"))}


@pytest.fixture(scope="module", params=["emulated", pytest.param("gpu", marks=pytest.mark.cuda)])
def device_ops(request):
    if request.param == "gpu":
        return get_ops("cuda:fp32")
    return request.getfixturevalue("emulated")


def test_rounds_to_the_nearest_and_back(device_ops, rng):
    """Ties to the even neighbour; infinities and NaN stay what they are; from bf16 nothing is rounded."""
    values = np.concatenate([
        [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-9, 3.4e38, np.inf, -np.inf, np.nan, 0.0, -0.0],
        rng.standard_normal(246) * 10.0 ** rng.integers(-30, 30, 246)]).astype("f4")
    stored = device_ops.empty(values.shape, "uint16")
    device_ops.write(stored, device_ops.from_host(values))
    np.testing.assert_array_equal(device_ops.to_host(stored), to_bf16(values))
    wanted = np.array([1, 1 + 2**-6, 1 + 2**-7, -1, np.inf, np.inf, -np.inf, np.nan], "f4")
    wide = device_ops.to_host(device_ops.widened(stored))
    np.testing.assert_array_equal(wide[:8], wanted)
    np.testing.assert_array_equal(to_bf16(wide), device_ops.to_host(stored))


@pytest.mark.parametrize("case", CHECKED)
def test_every_operation_rounds_its_exact_result_once(device_ops, case):
    CHECKED[case].values(Checked(device_ops))


@pytest.mark.parametrize("case", PRODUCTS)
def test_so_do_products_on_tensor_cores(tensor_cores, case):
    PRODUCTS[case].values(Checked(tensor_cores("Bf16"), rounds_weights=True))


def test_every_operation_with_activations_is_checked(emulated):
    checked = Checked(emulated)
    for case in CHECKED.values():
        case.values(checked)
    without = {name for group in WITHOUT.values() for name in group}
    assert checked.checked == {name for group in OPS.values() for name in group} - without


def test_mixed_types_are_refused(emulated):
    x, w = np.zeros((2, 4), "u2"), np.zeros((4, 4), "f4")
    with pytest.raises(ShapeError, match="relu_forward: y must be uint16, it is float32"):
        emulated.relu_forward(x, np.zeros((2, 4), "f4"))
    with pytest.raises(ShapeError, match="must be float32 or float64, it is uint16"):
        emulated.linear_forward(x, w.astype("u2"), x.copy())
    with pytest.raises(ShapeError, match="in bf16 need parameters in float32"):
        emulated.linear_forward(x, w.astype("f8"), x.copy())


# ---- planted mistakes: (file, what is written there, what is written instead, the case that must notice)
MISTAKES = {
    "cut off instead of rounded": ("activation", "(bits + 0x7fffu + (bits >> 16 & 1)) >> 16", "bits >> 16", "gelu"),
    "ties away from zero": ("combine", "0x7fffu + (bits >> 16 & 1)", "0x8000u", "conversion"),
    "halves of a word in the wrong order": ("activation", "bf16_pair(value.v[2 * i], value.v[2 * i + 1])",
                                            "bf16_pair(value.v[2 * i + 1], value.v[2 * i])", "relu, packed"),
    "the lower half is not masked": ("dropout", "words.v[i] & 0xffff0000u", "words.v[i]", "dropout, packed"),
    "a copy of twice the bytes": ("conv", "copy_async<V * sizeof(E)>", "copy_async<V * sizeof(T)>", "conv, packed"),
    "what is outside is copied": ("conv", "at(i, k) = from.real ? *from.at : T(0);", "at(i, k) = *from.at;", "conv"),
    "parts of a sum are left out": ("slices", "slice < slices; slice++", "slice + 1 < slices; slice++",
                                    "linear, slices, packed"),
    "a pair in the wrong order": ("linear", "low.bits | (unsigned)high.bits << 16",
                                  "high.bits | (unsigned)low.bits << 16", "linear"),
}
QUICK = ("cut off instead of rounded", "a pair in the wrong order")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
                                  for name in MISTAKES])
def test_planted_mistakes_are_noticed(cuda_cache, monkeypatch, name):
    file, right, wrong, case = MISTAKES[name]
    plant(monkeypatch, file, right, wrong)
    with pytest.raises((AssertionError, EmulatorError)):
        if case == "conversion":
            test_rounds_to_the_nearest_and_back(emulated_ops(cuda_cache), np.random.default_rng(0))
        else:
            on_cores = name == "a pair in the wrong order"
            CHECKED[case].values(Checked(emulated_ops(cuda_cache, *(("v4", "Bf16") if on_cores else ())), on_cores))


# ---- networks
BATCH = 4


@pytest.fixture
def make_net(cuda_cache):
    """make(): a small net whose activations are bf16; make(False): in float32, with the same products."""
    if why_not():
        pytest.skip(why_not())

    def make(bf16: bool = True, **options):
        net = small_net("reference", **options)
        net.ops = emulated_ops(cuda_cache, "v4", "Bf16", watch=False)
        if not bf16:
            net.ops.stored_dtype = lambda dtype: dtype
        return net
    return make


def images(step: int):
    rng = np.random.default_rng(step)
    return (rng.standard_normal((BATCH, 24, 24, 3)).astype("f4"), rng.integers(0, 4, BATCH),
            rng.permutation(1000)[:BATCH].astype(np.uint32))


def dtypes(plan) -> dict[str, str]:
    return {value.name: value.dtype for value in plan.values if "work" not in value.name}


def test_what_is_stored_in_bf16(make_net):
    """Activations and their gradients; not losses, probabilities, and what maximum was taken."""
    net = make_net()
    plan = net.compile_plan(BATCH, net.loss_outputs(True), (), grad=True)
    float32 = {"loss", "loss.probs"}
    found = dtypes(plan)
    assert {name for name, dtype in found.items() if dtype == "float32"} == float32
    assert {name for name, dtype in found.items() if dtype not in ("float32", "uint16")} == {"labels", "pool1.argmax"}
    assert all(param.data.dtype == param.grad.dtype == np.float32 for param in net.params.values())
    other = make_net(False).compile_plan(BATCH, net.loss_outputs(True), (), grad=True)
    assert set(dtypes(other).values()) == {"float32", "int32", "uint8"}


def test_a_layer_with_arithmetic_of_its_own_keeps_float32(make_net):
    net = make_net(with_state=True)
    plan = net.compile_plan(BATCH, net.loss_outputs(True), (), grad=True)
    assert "uint16" not in dtypes(plan).values()
    assert make_net().summary() != net.summary() and "activations in bf16" in make_net().summary()


def test_learns_as_in_float32(make_net):
    losses, moved = [], []
    for bf16 in (True, False):
        net = make_net(bf16)
        start = {name: param.data.copy() for name, param in net.params.items()}
        sgd = SGD(net, lr=0.05, momentum=0.9, decay=5e-4)
        losses.append([])
        for step in range(5):
            x, labels, ids = images(step % 2)
            losses[-1].append(net.loss(x, labels, sample_ids=ids, epoch=step))
            net.backward()
            sgd.step(net.ops)
        moved.append(np.concatenate([(param.data - start[name]).ravel() for name, param in net.params.items()]))
    np.testing.assert_allclose(*losses, rtol=0.01)
    assert np.linalg.norm(moved[0] - moved[1]) < 0.05 * np.linalg.norm(moved[1])
    assert not np.array_equal(*moved)


def test_captured_steps_take_images_as_they_are_stored(make_net):
    """Images rounded beforehand give the same bits as those that the plan copies; a step allocates nothing."""
    ends = []
    for stored in (False, True):
        net = make_net()
        sgd = SGD(net, lr=0.05, momentum=0.9, decay=5e-4)
        step = CapturedStep(net, sgd, None, RunningMetrics())
        x = np.empty((BATCH, 24, 24, 3), "u2" if stored else "f4")
        for number in range(3):
            given, labels, ids = images(number)
            x[...] = to_bf16(given) if stored else given
            step.run(x, labels, ids, epoch=number)
        ends.append([step.read()[0], *(param.data for param in net.params.values())])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)


def test_looking_inside_gives_float32(make_net):
    net, (x, labels, ids) = make_net(), images(0)
    logits = net.forward(x, keep="conv1")
    assert logits.dtype == net.activation("conv1").dtype == np.float32
    seen = net.trace(x, keep=["norm1", net.output], saved="pool1.argmax")
    assert seen["norm1"].dtype == np.float32
    np.testing.assert_allclose(seen[net.output], logits, rtol=0.05, atol=0.02)
    with pytest.raises(ShapeError, match="must be float32, got uint16"):
        net.forward(to_bf16(x))
    net.loss(x, labels, sample_ids=ids)
    found = net.backward(wrt="pool1", input_grad=True)
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in found.values())
    dy = np.ones_like(logits)
    net.forward(x, grad=True)
    assert net.backward(dy, input_grad=True).dtype == np.float32
    rules = {"ReLU": lambda layer, dy, saved: dy * (dy > 0)}
    net.forward(x, grad=True)
    with pytest.raises(ConfigError, match="stored activations in bf16; run trace instead"):
        net.backward(dy, rules=rules)
    net.trace(x)
    assert net.backward(dy, rules=rules, input_grad=True).dtype == np.float32


def test_a_run_cuts_images_in_bf16(make_net, tmp_path, monkeypatch):
    """Where nothing is multiplied afterwards: the values of float32, rounded. The training loop asks for them."""
    seen = []
    run = CapturedStep.run
    monkeypatch.setattr(CapturedStep, "run", lambda self, x, *more: seen.append(x.dtype) or run(self, x, *more))
    trainer = small_trainer(tmp_path / "run", images=16, net=make_net())
    trainer.fit(1)
    assert seen == [np.uint16] * 2 and all(np.isfinite(param.data).all() for param in trainer.net.params.values())
    pipeline, batch = trainer.prepare(), next(iter(trainer.loader.epoch(0)))
    wide = pipeline.train(batch, 3).copy()
    np.testing.assert_array_equal(pipeline.train(batch, 3, stored="uint16"), to_bf16(wide))
    assert wide.dtype == pipeline.evaluation(batch).dtype == np.float32
    pipeline.augment = replace(pipeline.augment, colour="authors")
    assert pipeline.train(batch, 3, stored="uint16").dtype == np.float32
