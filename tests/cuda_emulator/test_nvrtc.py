"""Every kernel file compiles for an A100, an H100 and the Blackwell GeForces as CuPy would compile it: no warning, no
register that spills to memory, no more shared memory than every GPU gives. No GPU is needed, only NVRTC's wheel."""

from __future__ import annotations

import pytest

from minicnn.backend.cuda import source as cuda_source
from minicnn.backend.cuda.gemm_tiling import HEIGHTS, WIDTHS, Product
from tests.cuda_emulator import nvrtc

pytestmark = pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC: pip install nvidia-cuda-nvrtc")
HOPPER = [name for name in cuda_source.files() if name.endswith("_hopper")]
OTHERS = [name for name in cuda_source.files() if name not in HOPPER]


@pytest.mark.parametrize(("arch", "dtype"), [("80", "float32"), ("90", "float32"), ("120", "float32"),
                                             ("90", "float64")])
@pytest.mark.parametrize("name", OTHERS)
def test_compiles(cuda_cache, name, arch, dtype):
    check(cuda_cache, name, dtype, arch=arch)


@pytest.mark.parametrize("arch", ["80", pytest.param("90", marks=pytest.mark.slow),
                                  pytest.param("120", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [name for name in OTHERS if "PRODUCTS" in cuda_source.source(name)])
@pytest.mark.parametrize("products", ["Bf16", "Fp16"])
def test_other_products_compile(cuda_cache, name, arch, products):
    check(cuda_cache, name, "float32", products, arch=arch)


ACTIVATIONS = [name for name in cuda_source.files() if "S* " in cuda_source.source(name)]


@pytest.mark.parametrize("arch", [pytest.param("80", marks=pytest.mark.slow), "90",
                                  pytest.param("120", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.slow] if name in ("conv", "linear", "lrn", "batchnorm") else [])
    for name in ACTIVATIONS if name not in HOPPER])
def test_activations_in_bf16_compile(cuda_cache, name, arch):
    check(cuda_cache, name, "float32", "Bf16", arch=arch, bf16=True)


WAYS = [Product("v5", rows, columns, 1, packs=packs) for rows in HEIGHTS for packs in (True, False)
        for columns in WIDTHS[0 if packs else 1:]]


@pytest.mark.parametrize("name", HOPPER)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.rows}-{way.columns}-{way.packs}")
@pytest.mark.parametrize("products", ["Tf32", pytest.param("Bf16", marks=pytest.mark.slow),
                                      pytest.param("Fp16", marks=pytest.mark.slow)])
def test_version_5_compiles(cuda_cache, name, products, way):
    """ptxas warns where it had to serialise the tensor cores with the threads; that would fail here, too."""
    check(cuda_cache, name, "float32", products, way.options)


@pytest.mark.parametrize("name", HOPPER)
@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.slow if i else []) for i, way in enumerate(WAYS)],
                         ids=lambda way: f"{way.rows}-{way.columns}-{way.packs}")
def test_version_5_compiles_for_activations_in_bf16(cuda_cache, name, way):
    check(cuda_cache, name, "float32", "Bf16", way.options, bf16=True)


def check(folder, name, dtype, products="Tf32", more=(), arch=None, bf16=False):
    text = cuda_source.source(name)
    log = nvrtc.kept_log(text, name, arch, cuda_source.options(text, dtype, products, more, bf16), folder)
    assert "warning" not in log.lower() and "serialized" not in log, log
    found = nvrtc.resources(log)
    assert set(found) == set(cuda_source.kernels(name))
    for kernel, used in found.items():
        assert used["spills"] == 0 and used["stack"] == 0, (kernel, used)
        assert used["shared"] <= 48 * 1024 and used["registers"] * 512 <= 65536 * (2 - bool(more)), (kernel, used)


@pytest.mark.parametrize(("text", "complaint"), [
    ('extern "C" __global__ void k(float* x) { int unused; x[0] = 1; }', "warning"),
    ('extern "C" __global__ void k(float* x) { volatile float a[9]; a[(int)x[5]] = 1; x[0] = a[(int)x[3]]; }', "stack"),
])
def test_warnings_and_stacks_are_detected(text, complaint):
    _, log = nvrtc.compile_cubin(text, "k", "90", ())
    assert "warning" in log if complaint == "warning" else nvrtc.resources(log)["k"]["stack"] > 0


def test_errors_name_the_file_and_line():
    with pytest.raises(RuntimeError, match=r"k.cu\(2\): error"):
        nvrtc.compile_cubin('extern "C" __global__ void k(float* x) {\n x[0] = y; }', "k", "90", ())
