"""Fixtures of all tests: `ops` runs a test on every backend, `dtype` in both precisions.

The cuda backend runs twice: as "cuda" on the emulator (tests/cuda_emulator), which needs g++ and no GPU, and as "gpu"
on a GPU, if selected with -m cuda.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import signal

import numpy as np
import pytest

from minicnn.backend.cuda.device import CupyDevice
from minicnn.backend.cuda.ops import CudaOps
from minicnn.backend.ops import BACKENDS
from minicnn.backend.select import get_ops
from tests.browser import visit as browsing
from tests.cuda_emulator.build import why_not
from tests.cuda_emulator.device import emulated_ops
from tests.helpers import no_hypothesis

if importlib.util.find_spec("hypothesis") is None:
    no_hypothesis.install()
from hypothesis import settings  # noqa: E402

try:
    from threadpoolctl import threadpool_limits
except ModuleNotFoundError:                                 # tests side by side are slower without
    def threadpool_limits(limits: int):
        return contextlib.nullcontext()

# Without these, tests of the GPU that need one are skipped; everywhere else they are required.
NOT_ON_EVERY_GPU_MACHINE = ("PIL", "safetensors", "tqdm", "matplotlib", "starlette", "uvicorn")

settings.register_profile("minicnn", derandomize=True, database=None, deadline=None, max_examples=30)
settings.load_profile("minicnn")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """With -m cuda, a file that needs a library which is not here is skipped, and the library named."""
    report = yield
    absent = re.search(r"ModuleNotFoundError: No module named '(\w+)", str(report.longrepr)) if report.failed else None
    if absent and absent[1] in NOT_ON_EVERY_GPU_MACHINE and collector.config.option.markexpr == "cuda":
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {absent[1]} is not installed")
    return report


@pytest.fixture(scope="session", autouse=True)
def one_thread_of_blas():
    """The reference's matrices are small and tests run in parallel, so BLAS threads would only slow them down."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session", autouse=True)
def signals_are_not_ignored():
    """Of a job in the background some are, and minicnn leaves those alone: tests that send them would wait for ever."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL),
                          (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session", params=[*BACKENDS, pytest.param("gpu", marks=pytest.mark.cuda)])
def ops(request):
    """Each backend in turn."""
    if request.param == "cuda":
        return request.getfixturevalue("emulated")
    return get_ops("cuda:fp32" if request.param == "gpu" else request.param)


@pytest.fixture(scope="session")
def cuda_cache(request, tmp_path_factory):
    """The cache folder of compiled kernels, kept between runs if pytest's cache is enabled."""
    cache = getattr(request.config, "cache", None)
    return cache.mkdir("cuda_emulator") if cache else tmp_path_factory.mktemp("cuda_emulator")


@pytest.fixture(scope="session")
def emulated(cuda_cache):
    """The cuda backend on the emulator."""
    if why_not():
        pytest.skip(why_not())
    return emulated_ops(cuda_cache)


@pytest.fixture(scope="session", params=[
    pytest.param((where, version), marks=[pytest.mark.cuda] if where == "gpu" else [], id=f"{where}-{version}")
    for where in ("emulated", "gpu") for version in ("v4", "v5")])
def tensor_cores(request, cuda_cache):
    """make(products): the cuda backend with matrix products on tensor cores, in Tf32, Bf16 or Fp16."""
    where, version = request.param
    if where == "emulated":
        if why_not():
            pytest.skip(why_not())
        return lambda products: emulated_ops(cuda_cache, version, products)
    device = CupyDevice()
    if version == "v5" and device.architecture != "90":
        pytest.skip(f"version 5 is for an H100 or H200, compute capability 9.0; this GPU has {device.architecture}")
    return lambda products: CudaOps(device, version, products)


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests; skips them where there is none."""
    if browsing.why_not():
        pytest.skip(browsing.why_not())
    with browsing.browser() as running:
        yield running


@pytest.fixture
def visit(chromium):
    """visit(url, width=..., dark=...): opens a page, which is checked and closed where the test ends."""
    visits = []

    def opened(url: str, **options) -> browsing.Visit:
        visits.append(browsing.Visit(chromium, url, **options))
        return visits[-1]

    yield opened
    try:
        for opened_one in visits:
            opened_one.check()
    finally:
        for opened_one in visits:
            opened_one.close()


@pytest.fixture(scope="session")
def torch():
    """PyTorch, where it is installed: `make judge`; `make test` does without."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def torchvision(torch):
    """torchvision's networks. Its compiled operators, which they do not use, may be those of another torch, or missing:
    `make judge` installs it without what it depends on. They are declared then.
    """
    missing = torch.library.Library("torchvision", "FRAGMENT")
    for schema in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                   "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"):
        try:
            torch._C._dispatch_has_kernel_for_dispatch_key(f"torchvision::{schema.partition('(')[0]}", "Meta")
        except RuntimeError:
            missing.define(schema)
    yield pytest.importorskip("torchvision")
    del missing


def pytest_collection_modifyitems(items):
    for item in items:
        if "torch" in getattr(item, "fixturenames", ()):
            item.add_marker("torch")


@pytest.fixture(scope="session")
def reference():
    """The reference backend, which is the specification."""
    return get_ops("reference")


@pytest.fixture(scope="session", params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    """Random numbers, the same in every run."""
    return np.random.default_rng(2012)
