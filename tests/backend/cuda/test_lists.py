"""What joins the list of operations has CUDA kernels, which are launched, emulated and compiled: the lists agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minicnn.backend.cuda import source
from minicnn.backend.cuda.gemm_tiling import TILES
from minicnn.backend.cuda.ops import CudaOps
from minicnn.backend.ops import OPS
from minicnn.gradcheck.cases import LAYERS
from tests.cuda_emulator import test_nvrtc
from tests.cuda_emulator.device import EmulatorDevice
from tests.kernels.test_conv import LARGE, SMALL, Case
from tests.layers.test_contract import Trial
from tests.mutations import MUTATIONS
from tests.test_mutations import CASES

ANSWERS = ("_work", "_algorithm")                           # operations that launch nothing and return something


class Listed(EmulatorDevice):
    """It computes nothing: it keeps the names of the files that were launched, and of their kernels."""

    def __init__(self):
        super().__init__(Path())
        self.launched: set[tuple[str, str]] = set()

    def compile(self, name, text, options):
        return name

    def function(self, file, kernel):
        return file, kernel

    def launch(self, function, *_):
        self.launched.add(function)


def operations() -> list[str]:
    return [name for group in OPS.values() for name in group]


@pytest.fixture(scope="module")
@np.errstate(all="ignore")                                  # nothing is computed: layers add memory that holds anything
def launched() -> dict[str, set]:
    """Operation -> its kernels; from all cases of the layers and mutations, in both number types and all versions."""
    found: dict[str, set] = {name: set() for name in operations()}
    for version in TILES:
        device = Listed()
        ops = CudaOps(device, version, "Tf32")
        for name in found:
            setattr(ops, name, _watched(device, getattr(ops, name), found[name]))
        for dtype in ("float32", "float64"):
            for case in (case for cases in LAYERS.values() for case in cases):
                trial = Trial(case, ops, dtype)
                if not trial.layer.is_view:
                    trial.forward(), trial.backward(trial.upstream())
            for shape in (SMALL | LARGE).values():
                _convolve(ops, Case(np.random.default_rng(0), dtype, *shape))
        for case in CASES.values():
            case.values(ops)
        x = np.empty((2, 3, 3, 16), "f4")
        ops.lrn_forward(x, x.copy(), n=5, k=2.0, alpha=1.0, beta=0.75)
        ops.lrn_backward(x, x.copy(), x.copy(), n=5, k=2.0, alpha=1.0, beta=0.75)
        window, y = {"kernel": (3, 3), "stride": (2, 2), "pads": (0, 0, 0, 0)}, np.empty((2, 1, 1, 16), "f4")
        argmax = np.empty(y.shape, "u1")
        ops.lrn_maxpool_forward(x, y, argmax, n=5, k=2.0, alpha=1.0, beta=0.75, **window)
        ops.lrn_maxpool_backward(x, y.copy(), argmax, x.copy(), n=5, k=2.0, alpha=1.0, beta=0.75, **window)
        ops.linear_sgd_step(*(np.empty(shape, "f4") for shape in ((3, 4), (3, 5), (4, 5), (4, 5))), lr=0.1,
                            momentum=0.9, decay=0.1)
        for name, shapes in (("linear_forward", ((4, 4096), (4096, 16), (4, 16))),                      # in slices
                             ("linear_backward_weights", ((4096, 4), (4096, 16), (4, 16)))):
            getattr(ops, name)(*(np.empty(shape, "f4") for shape in shapes))
        _watched(device, ops.widened, found.setdefault("widened", set()))(np.empty(8, "u2"))
        _watched(device, ops.write, found.setdefault("write", set()))(np.empty(8, "u2"), np.empty(8, "f4"))
    return found


def _watched(device: Listed, operation, kernels: set):
    def call(*arguments, **options):
        device.launched = set()
        result = operation(*arguments, **options)
        kernels.update(device.launched)
        return result
    return call


def _convolve(ops, c) -> None:
    work = c.work(ops)
    ops.conv_forward(c.x, c.w, c.dy.copy(), **c.options, work=work)
    ops.conv_backward_data(c.dy, c.w, c.x.copy(), **c.options, work=work)
    ops.conv_backward_weights(c.x, c.dy, c.w.copy(), **c.options, work=work)


def test_every_operation_launches_a_kernel(launched):
    assert {name for name, kernels in launched.items() if not kernels} == {
        name for name in operations() if name.endswith(ANSWERS)}


def test_every_kernel_is_launched_by_an_operation(launched):
    written = {(file, kernel) for file in source.files() for kernel in source.kernels(file)}
    assert set().union(*launched.values()) == written


def test_every_operation_is_compared_with_the_reference_on_the_emulator():
    """The mutations are: each is made, and detected, on the emulator as on every other backend."""
    assert {name for mutation in MUTATIONS for name in mutation.changes} == {
        name for name in operations() if not name.endswith(ANSWERS)}


def test_every_file_is_compiled_for_every_gpu():
    assert sorted(test_nvrtc.OTHERS + test_nvrtc.HOPPER) == source.files()
    marks = {mark.args[0]: mark.args[1] for mark in test_nvrtc.test_compiles.pytestmark if mark.name == "parametrize"}
    assert {arch for arch, _ in marks[("arch", "dtype")]} == {"80", "90", "120"}
    assert all(way.options[-1] == "-arch=sm_90a" for way in test_nvrtc.WAYS) and len(test_nvrtc.WAYS) == 10
