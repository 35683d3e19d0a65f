"""Products of bf16 on the CPU (device "cpu:bf16"): every pass against float64 sums of the rounded factors.

Each runs with the instructions in NumPy (tests/helpers/emulated_blocks.py), on any machine, and with those that this
machine has; on activations of float32, and on activations stored in bf16. The instructions themselves:
test_bf16_instructions.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from minicnn.backend.ops import OPS
from minicnn.backend.select import get_ops
from minicnn.kernels.cpu import conv as float32
from minicnn.kernels.cpu import threads
from minicnn.kernels.cpu.bf16 import available, block, conv, linear, weights
from tests.helpers import emulated_blocks
from tests.helpers.bf16 import from_bf16, half_a_unit, to_bf16
from tests.kernels.test_parity import arguments

CLOSE = 1e-6                # of the largest element: sums are float32
HERE = [kind for kind in emulated_blocks.KINDS if not available.why_not(kind)]
EMULATED = {f"emulated {kind}": kind for kind in emulated_blocks.KINDS}
# N, (H, W), C, K, (R, S), stride, padding (top, left, bottom, right), groups
SMALL = {
    "runs of channels": (2, (5, 4), 20, 9, (3, 3), (1, 1), (1, 1, 1, 1), 1),
    "whole steps": (1, (4, 3), 32, 33, (3, 2), (1, 1), (1, 0, 1, 1), 1),
    "few channels, a stride": (1, (15, 13), 3, 5, (11, 11), (4, 4), (0, 0, 2, 1), 1),
    "groups, a stride": (2, (6, 7), 36, 36, (3, 3), (2, 3), (1, 2, 0, 1), 2),
    "1 x 1, groups, a stride": (2, (5, 7), 48, 48, (1, 1), (2, 3), (0, 0, 0, 0), 2),
    "a pixel, and more padding": (1, (1, 2), 18, 5, (3, 5), (1, 1), (1, 2, 1, 2), 1),
}
LARGE = {
    "conv1 of AlexNet": (2, (59, 63), 3, 96, (11, 11), (4, 4), (0, 0, 0, 0), 1),
    "conv2 of AlexNet": (2, (13, 13), 96, 80, (5, 5), (1, 1), (2, 2, 2, 2), 2),
    "1 x 1": (5, (9, 11), 64, 40, (1, 1), (1, 1), (0, 0, 0, 0), 1),
    "1 x 1, a stride": (2, (14, 14), 64, 64, (1, 1), (2, 2), (0, 0, 0, 0), 1),
    "1 x 1, padding above": (2, (6, 5), 32, 32, (1, 1), (1, 1), (1, 0, 0, 0), 1),
    "1 x 1, padding on the right": (2, (6, 5), 32, 32, (1, 1), (1, 1), (0, 0, 0, 2), 1),
    "3 x 3, a stride": (2, (28, 27), 64, 48, (3, 3), (2, 2), (1, 1, 1, 1), 1),
    "few channels of many groups": (2, (9, 9), 24, 12, (3, 3), (1, 1), (1, 1, 1, 1), 4),
    "stride past the kernel": (2, (11, 10), 40, 40, (2, 2), (3, 3), (0, 0, 0, 0), 2),
}
MATRICES = [(1, 1, 1), (5, 19, 37), (35, 70, 17)]             # N, in, out
UPDATE = {"lr": 0.1, "momentum": 0.9, "decay": 0.5}


@pytest.fixture(params=[*EMULATED, *HERE] or ["none"])
def loop(request, monkeypatch):
    """Each inner loop in turn, in the place of the one that is chosen."""
    emulated = EMULATED.get(request.param)
    use(monkeypatch, emulated_blocks.block_of(emulated) if emulated else block.block_of(request.param))
    return request.param


@pytest.fixture
def real(monkeypatch):
    """The best inner loop that this machine has."""
    if not HERE:
        pytest.skip("; ".join(f"{kind}: {available.why_not(kind)}" for kind in emulated_blocks.KINDS))
    use(monkeypatch, block.block_of(HERE[0]))


@pytest.fixture(params=[False, True], ids=["float32", "stored in bf16"])
def stored(request):
    """How x, y, dx and dy are stored."""
    return request.param


@pytest.fixture(params=[1, 3])
def thread_count(request):
    before = threads.threads()
    threads.set_threads(request.param)
    yield request.param
    threads.set_threads(before)


def use(monkeypatch, chosen: block.Block) -> None:
    for module in (conv, linear):
        monkeypatch.setattr(module, "chosen", lambda: chosen)
    monkeypatch.setattr(conv, "FILLED", 2)                    # all in bf16
    monkeypatch.setattr(conv, "FILLED_DW", 2)


class Case:
    """A convolution's arrays, and its results in float64 from the factors as rounded."""

    stored = False                  # x, y, dx and dy in bf16

    def __init__(self, rng, N, size, C, K, kernel, stride, pads, groups):
        out = [(size[i] + pads[i] + pads[2 + i] - kernel[i]) // stride[i] + 1 for i in range(2)]
        self.x, self.dy = floats(rng, (N, *size, C)), floats(rng, (N, *out, K))
        self.w, self.b = floats(rng, (*kernel, C // groups, K)), floats(rng, (K,))
        self.window = {"stride": stride, "pads": pads, "groups": groups}

    def exact(self) -> dict[str, np.ndarray]:
        reference, (x, w, dy) = get_ops("reference"), (exactly(array) for array in (self.x, self.w, self.dy))
        y, dx, dw = (np.empty(array.shape) for array in (dy, x, w))
        reference.conv_forward(x, w, y, epilogue=(self.b.astype(np.float64), True), **self.window)
        reference.conv_backward_data(dy, w, dx, **self.window)
        reference.conv_backward_weights(x, dy, dw, add=False, **self.window)
        return {"y": y, "dx": dx, "dw": dw, "w + dw": self.w + dw}

    def computed(self) -> dict[str, np.ndarray]:
        """In memory and work space full of NaN."""
        work = np.full(conv.conv_work(self.x.shape, self.w.shape, "float32", **self.window), 255, np.uint8)
        x, dy, y, dx, dw, added = arrays_of(self)
        conv.conv_forward(x, self.w, y, epilogue=(self.b, True), work=work, **self.window)
        conv.conv_backward_data(dy, self.w, dx, work=work, **self.window)
        conv.conv_backward_weights(x, dy, dw, add=False, work=work, **self.window)
        conv.conv_backward_weights(x, dy, added, **self.window)
        return results(y, dx, dw, added)


class Matrices:
    """The same for a fully connected layer."""

    stored = False

    def __init__(self, rng, N, C, K):
        self.x, self.w, self.dy, self.b = (floats(rng, shape) for shape in ((N, C), (C, K), (N, K), (K,)))

    def exact(self) -> dict[str, np.ndarray]:
        x, w, dy = (exactly(array) for array in (self.x, self.w, self.dy))
        dw = x.T @ dy
        return {"y": np.maximum(x @ w + self.b, 0), "dx": dy @ w.T, "dw": dw, "w + dw": self.w + dw}

    def computed(self) -> dict[str, np.ndarray]:
        work = np.full(linear.linear_work(self.x.shape, self.w.shape, "float32"), 255, np.uint8)
        x, dy, y, dx, dw, added = arrays_of(self)
        linear.linear_forward(x, self.w, y, epilogue=(self.b, True), work=work)
        linear.linear_backward_data(dy, self.w, dx, work=work)
        linear.linear_backward_weights(x, dy, dw, add=False, work=work)
        linear.linear_backward_weights(x, dy, added)
        return results(y, dx, dw, added)


def arrays_of(case) -> tuple[np.ndarray, ...]:
    """x, dy, y, dx, dw and w, to be written where they are results; until then full of NaN."""
    x, dy = (to_bf16(array) if case.stored else array for array in (case.x, case.dy))
    y, dx, dw = (np.full(array.nbytes, 255, np.uint8).view(array.dtype).reshape(array.shape)
                 for array in (dy, x, case.w))
    return x, dy, y, dx, dw, case.w.copy()


def results(y, dx, dw, added) -> dict[str, np.ndarray]:
    y, dx = (from_bf16(array) if array.dtype == np.uint16 else array for array in (y, dx))
    return {"y": y, "dx": dx, "dw": dw, "w + dw": added}


def floats(rng, shape) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def exactly(array: np.ndarray) -> np.ndarray:
    """As rounded to bf16, in float64."""
    return from_bf16(to_bf16(array)).astype(np.float64)


def differences(case) -> dict[str, float]:
    """Of each result, of its largest element; where bf16 is written, beyond half a unit in the last place."""
    computed, found = case.computed(), {}
    for name, exact in case.exact().items():
        rounding = half_a_unit(exact) if case.stored and name in ("y", "dx") else 0
        found[name] = float(np.max(np.abs(computed[name] - exact) - rounding) / (np.abs(exact).max() or 1))
    return found


def check(case, stored: bool = False) -> None:
    case.stored = stored
    wrong = {name: value for name, value in differences(case).items() if not value < CLOSE}
    assert not wrong


@pytest.mark.parametrize("case", SMALL)
def test_convolution(loop, rng, case, stored):
    check(Case(rng, *SMALL[case]), stored)


@pytest.mark.parametrize("shape", MATRICES, ids=str)
def test_fully_connected(loop, rng, shape, stored):
    check(Matrices(rng, *shape), stored)


@pytest.mark.parametrize("case", LARGE)
def test_larger_convolutions(real, thread_count, rng, case, stored):
    check(Case(rng, *LARGE[case]), stored)


@pytest.mark.parametrize("shape", [(67, 300, 1100), (33, 1100, 70)], ids=str)
def test_larger_matrices(real, thread_count, rng, shape, stored):
    check(Matrices(rng, *shape), stored)


@pytest.mark.parametrize("groups, K, kernel", [(1, 64, 3), pytest.param(2, 96, 5, marks=pytest.mark.slow)])
def test_winograds_algorithm_widens_and_rounds_once(rng, groups, K, kernel):
    """In float32, of activations in bf16: the bits of float32 arrays, rounded. Maps that no tiles fill."""
    case = Case(rng, 4, (17, 14), 64, K, (kernel, kernel), (1, 1), (kernel // 2,) * 4, groups)
    case.x, case.dy = from_bf16(to_bf16(case.x)), from_bf16(to_bf16(case.dy))
    assert float32.conv_algorithm(case.x.shape, case.w.shape, "float32", **case.window) == "Winograd"
    found = []
    for case.stored in (False, True):
        x, dy, y, dx, dw, added = arrays_of(case)
        float32.conv_forward(x, case.w, y, epilogue=(case.b, True), **case.window)
        float32.conv_backward_data(dy, case.w, dx, **case.window)
        float32.conv_backward_weights(x, dy, dw, add=False, **case.window)
        float32.conv_backward_weights(x, dy, added, **case.window)
        found.append((y, dx, dw, added))
    for wide, narrow in zip(*found, strict=True):
        np.testing.assert_array_equal(narrow, to_bf16(wide) if narrow.dtype == np.uint16 else wide)


def test_pixels_in_several_parts(real, monkeypatch, rng):
    """dw with so little memory that lines follow in turn, and their chunks are cut among threads."""
    monkeypatch.setattr(weights, "TOGETHER_BYTES", 40 << 10)
    monkeypatch.setattr(weights, "CHUNK", 2)
    monkeypatch.setattr(weights, "WHOLE", weights.WHOLE[:2])
    check(Case(rng, 3, (17, 13), 40, 20, (3, 3), (1, 1), (1, 1, 1, 1), 1))


@pytest.mark.parametrize("epilogue", [(False, False), (False, True), (True, False)], ids=str)
def test_epilogues(real, rng, epilogue):
    case, dense = Case(rng, *SMALL["runs of channels"]), Matrices(rng, 5, 19, 37)
    wanted, y = np.empty(case.dy.shape), np.empty_like(case.dy)
    options = {"epilogue": (case.b if epilogue[0] else None, epilogue[1]), **case.window}
    get_ops("reference").conv_forward(exactly(case.x), exactly(case.w), wanted, **options)
    conv.conv_forward(case.x, case.w, y, **options)
    assert np.abs(y - wanted).max() < CLOSE * np.abs(wanted).max()
    wanted, y = exactly(dense.x) @ exactly(dense.w) + epilogue[0] * dense.b, np.empty_like(dense.dy)
    linear.linear_forward(dense.x, dense.w, y, epilogue=(dense.b if epilogue[0] else None, epilogue[1]))
    assert np.abs(y - (np.maximum(wanted, 0) if epilogue[1] else wanted)).max() < CLOSE * np.abs(wanted).max()


@pytest.mark.parametrize("shape", [(13, 100, 1100), (5, 49, 33), (1, 1, 1)], ids=str)
def test_a_step_within_the_product_has_the_bits_of_two(real, rng, shape):
    case = Matrices(rng, *shape)
    v, dw = floats(rng, case.w.shape), np.empty_like(case.w)
    w_once, v_once = case.w.copy(), v.copy()
    linear.linear_sgd_step(case.x, case.dy, w_once, v_once, **UPDATE)
    linear.linear_backward_weights(case.x, case.dy, dw, add=False)
    get_ops("cpu").sgd_step(case.w, dw, v, **UPDATE)
    np.testing.assert_array_equal(w_once, case.w)
    np.testing.assert_array_equal(v_once, v)


def test_same_bits_in_each_run(real, rng, stored):
    before = threads.threads()
    threads.set_threads(3)
    try:
        for case in (Case(rng, *LARGE["conv2 of AlexNet"]), Matrices(rng, 35, 300, 500)):
            case.stored = stored
            first, *others = (case.computed() for _ in range(3))
            for other in others:
                for name, array in first.items():
                    np.testing.assert_array_equal(array, other[name])
    finally:
        threads.set_threads(before)


@pytest.mark.parametrize("value", [np.inf, np.nan], ids=str)
@pytest.mark.parametrize("case", ["runs of channels", "whole steps", "few channels, a stride", "groups, a stride"])
def test_infinity_and_nan_stay_where_they_are(real, rng, case, value, stored):
    """In y and dx exactly where a window has the element; in dw nowhere but in its channel."""
    case = Case(rng, *SMALL[case])
    case.stored = stored
    case.b[:] = 0
    H, W, C = case.x.shape[1:]
    for pixel in ((0, 0), (H // 2, W - 1), (H - 1, 0)):
        clean, case.x[(0, *pixel, C // 3)] = case.computed(), value
        reached = np.zeros(case.dy.shape)
        mark = np.zeros(case.x.shape)
        mark[(0, *pixel, C // 3)] = 1
        get_ops("reference").conv_forward(mark, np.ones(case.w.shape), reached, **case.window)
        spoilt = case.computed()
        assert not np.isnan(value) or np.isnan(spoilt["y"][reached > 0]).all()
        np.testing.assert_array_equal(spoilt["y"][reached == 0], clean["y"][reached == 0])
        others = np.arange(case.w.shape[2]) != C // 3 % case.w.shape[2]
        np.testing.assert_array_equal(spoilt["dw"][:, :, others], clean["dw"][:, :, others])
        case.x[(0, *pixel, C // 3)] = 1
        clean, case.dy[0, -1, 0, 3] = case.computed(), value
        reached, mark = np.zeros(case.x.shape), np.zeros(case.dy.shape)
        mark[0, -1, 0, 3] = 1
        get_ops("reference").conv_backward_data(mark, np.ones(case.w.shape), reached, **case.window)
        spoilt = case.computed()
        np.testing.assert_array_equal(spoilt["dx"][reached == 0], clean["dx"][reached == 0])
        assert not np.isfinite(spoilt["dx"][reached > 0]).any()
        case.dy[0, -1, 0, 3] = 1


def test_infinity_and_nan_stay_in_their_image(real, rng, stored):
    case = Matrices(rng, 5, 19, 37)
    case.stored = stored
    clean, case.x[2, 3], case.dy[4, 5] = case.computed(), np.inf, np.nan
    spoilt = case.computed()
    np.testing.assert_array_equal(np.isfinite(spoilt["y"]).all(1), np.arange(5) != 2)
    np.testing.assert_array_equal(np.isfinite(spoilt["dx"]).all(1), np.arange(5) != 4)
    rest = np.ix_(np.arange(19) != 3, np.arange(37) != 5)
    np.testing.assert_array_equal(spoilt["dw"][rest], clean["dw"][rest])


# ---- the tests can fail
FIRST = np.zeros(block.SIDE, np.int64)
MISTAKES = {
    "the elements of a pair swapped": lambda at: at | {"a": at["a"] + 2},
    "halves of b swapped": lambda at: at | {"b": at["b"] + at["b_half"], "b_half": -at["b_half"]},
    "always begun anew": lambda at: at | {"begin": 1},
    "never begun": lambda at: at | {"begin": 0},
    "the last step forgotten": lambda at: at | {"count": max(1, at["count"] - 1)},
    "the first row in the place of all": lambda at: at | {"places": FIRST.ctypes.data},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_block_is_detected(monkeypatch, rng, mistake):
    def wrong(*arguments):
        emulated_blocks.dots(**MISTAKES[mistake](dict(zip(block.ARGUMENTS, arguments, strict=True))))

    monkeypatch.setattr(linear, "DEPTH", 32)                  # two pieces of the reduction
    use(monkeypatch, emulated_blocks.block_of(available.DOTS, wrong))
    found = differences(Matrices(rng, 5, 40, 37))
    assert any(not value < CLOSE for value in found.values()), found


# ---- the device
def test_the_operations_take_the_same_arguments(reference):
    for module, names in ((conv, OPS["conv"]), (linear, OPS["linear"])):
        for name in names:
            assert arguments(getattr(module, name)) == arguments(getattr(reference, name))


def test_what_winograds_algorithm_computes_faster_is_named(monkeypatch):
    window = {"stride": (1, 1), "pads": (1, 1, 1, 1)}
    for kind, wanted in ((available.DOTS, ["Winograd, float32", "direct, bf16 by vdpbf16ps; dw Winograd, float32",
                                           "Winograd, float32; dw direct, bf16 by vdpbf16ps",
                                           "direct, bf16 by vdpbf16ps"]),
                         (available.TILES, ["direct, bf16 by AMX tiles"] * 4)):
        monkeypatch.setattr(conv, "chosen", lambda kind=kind: block.Block(kind, 8, True, 0))
        got = [conv.conv_algorithm((32, size, size, C), (3, 3, C, C), "float32", **window)
               for size, C in ((28, 64), (13, 256), (28, 512), (7, 512))]
        assert got == wanted
        assert conv.conv_algorithm((2, 8, 8, 64), (3, 3, 64, 64), "float64", **window) == "direct, float64"
