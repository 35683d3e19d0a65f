"""Device "cpu:bf16": its operations, networks that learn as in float32, and machines that cannot run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from math import prod

import numpy as np
import pytest

from minicnn.backend import cpu
from minicnn.backend.ops import OPS
from minicnn.backend.select import get_ops, make_ops
from minicnn.builder import Builder
from minicnn.errors import ConfigError, ShapeError
from minicnn.graph import Net
from minicnn.init import Normal
from minicnn.kernels.cpu.bf16 import available
from minicnn.plan import Plan
from minicnn.summary import summarize
from minicnn.train.sgd import SGD
from minicnn.train.step import backward_and_update
from tests.helpers.small_run import small_net, small_trainer

WHY_NOT = "; ".join(filter(None, map(available.why_not, (available.TILES, available.DOTS))))
needs_bf16 = pytest.mark.skipif(bool(available.why_not(available.TILES) and available.why_not(available.DOTS)),
                                reason=WHY_NOT)
HALF = 2.0**-9              # the largest relative error of a rounded factor


def plan_of(net: Net) -> Plan:
    """Of a training step on eight images."""
    return net.plan_for(8, net.loss_outputs(True), (), True)


@needs_bf16
def test_only_products_differ_from_the_device_in_float32():
    ours, float32 = get_ops("cpu:bf16"), get_ops("cpu")
    assert (ours.name, ours.spec, make_ops("cpu:fp32").spec) == ("cpu", "cpu:bf16", "cpu")
    for kind, names in OPS.items():
        for name in names:
            assert (getattr(ours, name) is getattr(float32, name)) == (kind not in ("conv", "linear"))
            assert f"{name:32s}minicnn.kernels.cpu.{'bf16.' * (kind in ('conv', 'linear'))}" in ours.report()


@needs_bf16
def test_the_report_compares_with_float32(monkeypatch):
    measured = r"(AMX tiles|vdpbf16ps), \d+ GFLOP/s on one thread, float32 \d+: \d+\.\d times in the inner loop, .*"
    assert re.fullmatch(measured, cpu.bf16_report())
    monkeypatch.setattr("minicnn.kernels.cpu.bf16.rates.of_bf16", lambda block: 90.0)
    monkeypatch.setattr("minicnn.kernels.cpu.bf16.rates.of_float32", lambda: 180.0)
    assert cpu.bf16_report().endswith("90 GFLOP/s on one thread, float32 180: 0.5 times in the inner loop, not "
                                     "faster: use cpu")


def small_alexnet(device: str) -> Net:
    """Its kinds of layers: a stride, groups, LRN, overlapping pooling."""
    b = Builder((47, 47, 3), name="small")
    b.conv("conv1", 32, 11, stride=4, init=Normal(0.05))
    b.relu()
    b.lrn("norm1")
    b.maxpool("pool1", 3, stride=2)
    b.conv("conv2", 48, 5, padding=2, groups=2, init=Normal(0.05), bias_init=1)
    b.relu()
    b.conv("conv3", 40, 3, padding=1, init=Normal(0.05))
    b.relu()
    b.flatten()
    b.linear("fc4", 96, init=Normal(0.05), bias_init=1)
    b.relu()
    b.linear("fc5", 10, init=Normal(0.1))
    b.loss()
    return b.net(seed=3, device=device)


def small_resnet(device: str) -> Net:
    """A block with a projection: strides, 1 x 1, batch normalisation, an addition."""
    b = Builder((16, 16, 3), name="small")
    b.conv("conv1", 16, 3, padding=1, bias=False)
    b.batchnorm("norm1")
    start = b.relu()
    b.conv("conv2", 32, 3, stride=2, padding=1, bias=False)
    b.batchnorm("norm2")
    b.relu()
    b.conv("conv3", 32, 3, padding=1, bias=False)
    left = b.batchnorm("norm3")
    b.conv("conv4", 32, 1, stride=2, bias=False, input=start)
    right = b.batchnorm("norm4")
    b.add("add", [left, right])
    b.relu()
    b.global_avgpool("pool")
    b.flatten()
    b.linear("fc", 10, init=Normal(0.1))
    b.loss()
    return b.net(seed=3, device=device)


@needs_bf16
@pytest.mark.parametrize("build, allowed", [(small_alexnet, 0.1), (small_resnet, 0.15)])
def test_a_network_learns_as_in_float32(build, allowed, rng):
    """Losses, and how far all parameters together move in three steps: 0.04 to 0.06 of the distance differ as measured,
    and 0.08 with batch normalisation, whose statistics are those of eight images."""
    nets = {device: build(device) for device in ("cpu", "cpu:bf16")}
    shape = (8, *next(iter(nets["cpu"].inputs.values())))
    images, labels = rng.standard_normal(shape).astype(np.float32), rng.integers(0, 10, 8).astype(np.int32)
    losses, moved = {}, {}
    for device, net in nets.items():
        before = {name: param.data.copy() for name, param in net.params.items()}
        optimiser = SGD(net.params, lr=0.01, momentum=0.9, decay=0.0005)
        losses[device] = []
        for _ in range(3):
            losses[device].append(float(net.loss(images, labels)))
            backward_and_update(net, optimiser)
        moved[device] = np.concatenate([(param.data - before[name]).ravel() for name, param in net.params.items()])
    assert [plan_of(net).stored for net in nets.values()] == ["float32", "uint16"]
    assert all(array.dtype == np.float32 for param in nets["cpu:bf16"].params.values()
               for array in (param.data, param.grad))
    assert losses["cpu"] != losses["cpu:bf16"]
    np.testing.assert_allclose(losses["cpu:bf16"], losses["cpu"], rtol=8 * HALF)
    difference = np.linalg.norm(moved["cpu:bf16"] - moved["cpu"]) / np.linalg.norm(moved["cpu"])
    assert 0 < difference < allowed, difference


@needs_bf16
def test_activations_take_half_of_the_memory():
    nets = [small_alexnet(device) for device in ("cpu", "cpu:bf16")]
    float32, ours = ({value.name: prod(value.shape) * np.dtype(value.dtype).itemsize for value in plan_of(net).values
                      if not value.name.endswith(("work", "work, backward"))} for net in nets)
    others = {"labels", "pool1.argmax", "loss", "loss.probs"}
    assert {name for name in float32 if ours[name] == float32[name]} == others
    assert all(2 * ours[name] == float32[name] for name in float32.keys() - others)
    assert [summarize(net, 8).endswith(" MiB for training, activations in bf16") for net in nets] == [False, True]


@needs_bf16
def test_layers_that_compute_themselves_need_float32(tmp_path):
    lines = []
    trainer = small_trainer(tmp_path, images=16, net=small_net("cpu:bf16", with_state=True), say=lines.append)
    assert plan_of(trainer.net).stored == "float32"
    trainer.fit(1)
    said = [line for line in lines if line.startswith("activations")]
    assert said == ["activations  are stored in float32: layer 'mean1' takes no others"], lines


@needs_bf16
def test_a_run_resumes_bit_for_bit(tmp_path, monkeypatch):
    """Interrupted within an epoch, and resumed. Its files are those of float32; its images are cut in bf16."""
    seen, loss = set(), Net.loss
    monkeypatch.setattr(Net, "loss", lambda net, x, labels, train=True, **options: (
        seen.add((train, x.dtype.name)) or loss(net, x, labels, train, **options)))

    def trainer(folder, device="cpu:bf16", **options):
        return small_trainer(tmp_path / folder, images=32, net=small_net(device), **options)

    whole, first = trainer("whole"), trainer("cut", save_every=2)
    whole.fit(2)
    assert (True, "uint16") in seen and (True, "float32") not in seen

    def cut(*arguments, **options):
        save(*arguments, **options)
        if (first.epoch, first.step) == (1, 2):
            raise KeyboardInterrupt

    save, first.save = first.save, cut
    with pytest.raises(KeyboardInterrupt):
        first.fit(2)
    assert plan_of(first.net).stored == "uint16"
    in_float32 = trainer("cut", "cpu").resume()
    for name, param in first.net.params.items():
        np.testing.assert_array_equal(in_float32.net.params[name].data, param.data)
    second = trainer("cut").resume()
    assert (second.epoch, second.step) == (1, 2)
    second.fit(2)
    for name, param in whole.net.params.items():
        np.testing.assert_array_equal(second.net.params[name].data, param.data)
        np.testing.assert_array_equal(second.optimiser.velocities[name], whole.optimiser.velocities[name])
    assert second.state.metrics.state() == whole.state.metrics.state()


@pytest.mark.parametrize("module, name", [(module, name) for module in ("conv", "linear") for name in OPS[module]
                                          if name != "conv_algorithm"])
@needs_bf16
def test_arrays_of_float64_are_computed_in_float64(monkeypatch, module, name):
    """By the function of the same name of the device "cpu", with the same arguments."""
    asked = []

    def of_float32(*given, **options):
        asked.append((given, options))
        return 0

    monkeypatch.setattr(f"minicnn.kernels.cpu.{module}.{name}", of_float32)
    ours, shape = getattr(get_ops("cpu:bf16"), name), (2, 2, 3, 4) if module == "conv" else (3, 4)
    arrays = [np.ones(shape)] * (4 if name == "linear_sgd_step" else 3)
    options = {"stride": (1, 1), "pads": (0, 0, 0, 0)} if module == "conv" else {}
    options |= dict.fromkeys(("lr", "momentum", "decay"), 0.5) if name == "linear_sgd_step" else {}
    given = [shape, shape, "float64"] if name.endswith("_work") else arrays
    ours(*given, **options)
    (passed, chosen), = asked
    assert all(one is other for one, other in zip(passed, given, strict=True)) and options.items() <= chosen.items()


def test_what_numba_is_told_counts():
    """One line and no crash, before anything compiled is loaded: kernels/cpu would be, by an operation."""
    code = ("import sys; from minicnn.cli.main import main; "
            "sys.exit(main(['summary', 'cifar_18pct', '--device', 'cpu:bf16']))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+avx512f"})
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: device 'cpu:bf16' multiplies by AMX tiles or vdpbf16ps, and ")
    assert done.stderr.count("\n") == 1 and "use --device cpu, which computes in float32, and leave out" in done.stderr


@needs_bf16
@pytest.mark.parametrize("dtype", ["float16", "float64", "int64"])
def test_a_gradient_of_any_dtype_is_rounded(rng, dtype):
    """As on the device "cpu": what NumPy converts to float32."""
    net, x = small_net("cpu:bf16"), rng.standard_normal((2, 24, 24, 3)).astype(np.float32)
    dy, found = rng.integers(-4, 5, net(x).shape).astype("float32"), []
    for given in (dy, dy.astype(dtype)):
        net.forward(x, grad=True)
        found.append(net.backward(given, input_grad=True))
    np.testing.assert_array_equal(*found)


@needs_bf16
def test_what_is_in_float32_alone_is_named_with_what_helps():
    net = small_net("cpu:bf16")
    x, labels = np.zeros((2, 24, 24, 3), np.float32), np.zeros(2, np.int32)
    net.loss(x, labels)
    with pytest.raises(ConfigError, match="stores float32, or use device 'cpu'$"):
        net.backward(rules={"ReLU": lambda layer, dy, saved: dy})
    with pytest.raises(ShapeError, match="must be uint16, got float32; with stored=True it holds bf16, without it is"):
        net.loss(x, labels, stored=True)
