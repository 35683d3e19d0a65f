"""The stand-in refuses what CuPy refuses; and the tests marked `cuda` run on it, in a process where it is CuPy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cuda_emulator.build import why_not

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "")

# What make test runs: contracts of all layers, captured steps, operations on arrays of the GPU, the trace.
SAMPLE = ("tests/layers/test_contract.py", "tests/layers/test_lrn.py", "tests/layers/test_loss.py",
          "tests/layers/test_batchnorm.py", "tests/train/test_step.py", "tests/train/test_sgd.py",
          "tests/test_trace.py", "tests/data/test_augment.py", "tests/test_mutations.py",
          "tests/models/test_own_net_and_layer.py")
SLOW_OF_IT = "not mistake and not resumes and not every_optimiser"
ONLY_A_GPU_HAS = ("needs a GPU's speed", "takes the emulator many seconds", "needs two GPUs", "for an H100 or H200",
                  "where an array of a GPU begins is its allocator's choice")


def process(arguments: list, cuda_cache: Path) -> subprocess.CompletedProcess:
    """A process in which `import cupy` gives the stand-in."""
    paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "CUPY_CACHE_DIR": str(cuda_cache)}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | paths)


def run_tests(cuda_cache: Path, *arguments: str) -> str:
    """The output of these tests on the stand-in, which all pass or are skipped because they need a real GPU."""
    done = process(["-m", "pytest", "-m", "cuda", "-q", "-rs", "-p", "no:cacheprovider", "-o", "addopts=", *arguments],
                   cuda_cache)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    skipped = re.findall(r"^SKIPPED \[\d+\] (.*)$", done.stdout, re.M)
    assert all(any(reason in line for reason in ONLY_A_GPU_HAS) for line in skipped), skipped
    print(done.stdout.strip().splitlines()[-1])
    return done.stdout


def counted(output: str) -> int:
    return int(re.search(r"(\d+) passed", output)[1])


def test_a_sample_of_the_gpu_tests_passes(cuda_cache):
    assert counted(run_tests(cuda_cache, *SAMPLE, "-k", SLOW_OF_IT)) > 550


@pytest.mark.slow
def test_all_gpu_tests_pass_or_say_what_only_a_gpu_has(cuda_cache):
    assert counted(run_tests(cuda_cache, "-n", "2")) > 2200


def on_the_standin(cuda_cache, program: str) -> list:
    """What a program prints, as JSON."""
    done = process(["-c", "import json, numpy as np, cupy\n" + program], cuda_cache)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


REFUSED = {
    "np.asarray(x)": "Implicit conversion", "np.testing.assert_array_equal(x, 1)": "Implicit conversion",
    "h + x": "Unsupported type", "x + h": "Unsupported type", "x == h": "Unsupported type",
    "x.__iadd__(h)": "Unsupported type", "x.__setitem__(0, h[0])": "Unsupported type",
    "h.__setitem__(0, x[0])": "Implicit conversion", "np.add(h, 1, out=x)": "Unsupported type",
    "np.roll(x, 1)": "does not have numpy.roll", "x.set([[1., 2.]])": "Only numpy.ndarray",
    "x.set(h.T)": "mismatch", "x.get(out=h[:1])": "mismatch", "cupy.cuda.Device(1)": "one GPU",
    "k((1,), (1,), (h,))": "numpy.ndarray of shape",
    "k((1,), (1,), (1.0,))": "y must be a contiguous array",
    "k((1,), (1,), (x,), shared_mem=60000)": "60000 bytes of shared memory",
}
SETUP = """
x, h = cupy.full((3, 2), 1.0, "float32"), np.ones((3, 2), "float32")
k = cupy.RawModule(code='extern "C" __global__ void k(float* y) { y[threadIdx.x] += 1; }').get_function("k")
def outcome(expression):
    try:
        eval(expression)
    except Exception as error:
        return str(error)
    return "nothing was refused"
"""


def test_refuses_what_cupy_refuses(cuda_cache):
    found = on_the_standin(cuda_cache, SETUP + f"print(json.dumps([outcome(e) for e in {list(REFUSED)!r}]))")
    for (expression, message), got in zip(REFUSED.items(), found, strict=True):
        assert message in got, (expression, got)


def test_computes_what_numpy_computes(cuda_cache):
    program = SETUP + """
x[1] = 5
y = (2 * x - x / 2).sum(axis=0)
first, rows = x[1, 1], x[np.array([1, 1])]
first[...] = 7                                              # a view of no axes, as in CuPy
print(json.dumps([y.tolist(), float(first), float(x[1, 1]), rows.tolist(), x.T.shape, bool((x > 0).all()),
                  x[::2].flags.c_contiguous, cupy.ascontiguousarray(x[:, ::2]).get().tolist()]))"""
    assert on_the_standin(cuda_cache, program) == [[10.5, 10.5], 7.0, 7.0, [[5, 5], [5, 5]], [2, 3], True, False,
                                                   [[1], [5], [1]]]


def test_a_stream_that_captures_refuses_what_needs_the_host(cuda_cache):
    program = SETUP + """
s, found = cupy.cuda.Stream(non_blocking=True), []
with s:
    s.begin_capture()
    k((1,), (6,), (x,))
    for e in ("x.get()", "x.set(h)", "cupy.asarray(h)", "x + 1", "x.fill(2)", "float(x[0, 0])", "cupy.zeros(3)",
              "x.copy()", "s.synchronize()", "cupy.cuda.Event().synchronize()", "s.begin_capture()",
              "cupy.cuda.Stream.null.begin_capture()", "x[np.array([0])]"):
        found.append([e, outcome(e)])
    graph = s.end_capture()
before = float(x[0, 0])
graph.launch(), graph.launch()
after = x.get().tolist()
del x
print(json.dumps([found, before, after, outcome("graph.launch()")]))"""
    found, before, after, freed = on_the_standin(cuda_cache, program)
    assert all("Capture" in message or "capture" in message for _, message in found), found
    assert before == 1.0 and after == [[3.0] * 2] * 3       # nothing ran while capturing; then twice
    assert "captured, has been freed" in freed


def test_a_launch_that_captures_needs_its_memory(cuda_cache):
    """using_allocator: memory of a pool lives as long as the pool."""
    program = """
import gc, weakref
pool = cupy.cuda.MemoryPool()
with cupy.cuda.using_allocator(pool.malloc):
    x = cupy.empty(3)
kept, gone = weakref.ref(x.values.base), cupy.empty(3)
lost = weakref.ref(gone.values.base)
del x, gone; gc.collect()
held = kept() is not None
del pool; gc.collect()
print(json.dumps([held, kept() is None, lost() is None]))"""
    assert on_the_standin(cuda_cache, program) == [True, True, True]


def test_what_a_gpu_needs_of_minicnn(cuda_cache):
    """An array of the GPU that is not contiguous is copied there; its memory limits a batch; a layer that is called
    outside a network keeps its parameters on the GPU."""
    program = """
from minicnn.backend.select import get_ops
from minicnn.errors import ConfigError
from minicnn.layers.linear import Linear
from minicnn.train.watch.memory import check_memory
from tests.helpers.small_run import small_net
ops = get_ops("cuda:fp32")
x = ops.from_host(np.arange(6, dtype="f4").reshape(2, 3))
turned = ops.from_host(x.T)
cupy.cuda.runtime.memGetInfo = lambda: (1000, 80 << 30)
try:
    check_memory(small_net("cuda:fp32"), 8)
except ConfigError as error:
    refused = str(error)
print(json.dumps([turned.flags.c_contiguous, turned.get().tolist(), ops.from_host(x) is x, refused,
                  list(Linear(3, 4)(x, ops=ops).shape)]))"""
    contiguous, turned, same, refused, shape = on_the_standin(cuda_cache, program)
    assert contiguous and same and turned == [[0, 3], [1, 4], [2, 5]] and shape == [2, 4]
    assert re.search("training with batch 8 needs .* of the GPU's memory, 0 MiB are free; not even", refused)


def test_the_example_with_an_own_net_runs_on_a_gpu(cuda_cache):
    """Its lines about accuracy and learned parameters read arrays of the GPU; one step of training."""
    program = """
import importlib.util, io, contextlib
spec = importlib.util.spec_from_file_location("own", "examples/own_net_and_layer.py")
own = importlib.util.module_from_spec(spec); spec.loader.exec_module(own)
sets = own.procedural_sets((32, 0, 2), size=96)
own.procedural_sets, own.range = (lambda *_, **__: sets), (lambda n: range(1 if n == 6 else n))
own.own_net.__defaults__ = ("cuda:fp32", "float32")
text = io.StringIO()
own.check_layer = lambda *_: type("", (), {"raise_if_failed": lambda self: self})()
with contextlib.redirect_stdout(text):
    own.main()
print(json.dumps(text.getvalue()))"""
    text = on_the_standin(cuda_cache, program)
    assert re.search(r"epoch 1 +loss .* test accuracy .*%\n\n +[\d.]+ s; .* of act1 went from 0.25", text), text


def test_a_warning_of_cupys_import_is_no_reason(monkeypatch, tmp_path):
    from minicnn.backend.cuda import device

    module = "from warnings import warn\nwarn('old', DeprecationWarning)\nraise OSError('loaded')"
    (tmp_path / "cupy.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert device.why_not.__wrapped__() == "CuPy cannot be loaded: OSError: loaded"


def test_a_cubin_keeps_its_last_byte(cuda_cache):
    """CuPy's getCUBIN cuts it off, and CUDA needs it: source.compiled puts it back."""
    program = """
from minicnn.backend.cuda import source
text = source.source("linear_hopper")
path = source.compiled("linear_hopper", text, source.options(text, "float32"))
cut = path.with_name("cut.cubin")
cut.write_bytes(path.read_bytes()[:-1])
try:
    cupy.RawModule(path=str(cut))
except cupy.cuda.nvrtc.NVRTCError as error:
    print(json.dumps([len(cupy.RawModule(path=str(path))._text) == len(text), str(error)]))"""
    whole, error = on_the_standin(cuda_cache, program)
    assert whole and "INVALID_IMAGE" in error


def test_numpy_arrays_are_refused_here_too():
    """The package can be imported by its full name, beside a real CuPy."""
    from tests.cuda_standin import cupy

    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(cupy.zeros(3))
