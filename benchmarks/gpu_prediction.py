"""What a training step of AlexNet moves and computes on a GPU, kernel by kernel, and how long that should take.

    python benchmarks/gpu_prediction.py                    batch 128, TF32, an H100; no GPU is needed
    python benchmarks/gpu_prediction.py --gpu h200 --json FILE
    python benchmarks/gpu_prediction.py --precision bf16   activations in bf16; what they would move in float32 below

The step is planned and launched as on a GPU, by a device that keeps the launches and computes nothing. Bytes: every
array that a kernel reads or writes, once each, operands of products included. FLOP: of the products. Instructions and
registers: of the compiled kernel, each instruction once, where NVRTC is installed.

A prediction is the time of the most loaded unit. Memory: the bytes. Products of version 5: a model of their stages of
32 terms, in cycles: tensor cores, and the one pipe of 128 bytes a cycle of shared memory and L1 cache, through which
pass the operands that the tensor cores read, their way into shared memory, and what is loaded. None of it is measured:
it is there to be compared with the first measurement (`make gpu-profile`).
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from alexnet_twins import DECAY, RECIPE, our_network

from minicnn.backend.cuda import source
from minicnn.backend.cuda.gemm_tiling import MULTIPROCESSORS, Product
from minicnn.backend.cuda.ops import ON_HOPPER, PRECISIONS, CudaOps
from minicnn.evaluate.metrics import RunningMetrics
from minicnn.layers.base import stored_dtype
from minicnn.train.loss_scale import LossScale
from minicnn.train.sgd import SGD
from minicnn.train.step import CapturedStep

BANDWIDTH = {"h100": 2.8e12, "h200": 4.0e12}            # bytes/s that a copy reaches
CLOCK, SHORTEST = 1.755e9, 2e-6                         # Hz; seconds of a kernel that does next to nothing
TENSOR_CORES = {"Tf32": 2048, "Bf16": 4096, "Fp16": 4096}       # FLOP of a multiprocessor in a cycle
PIPE, AROUND, KNOWN = 128, 6000, 256                    # bytes a cycle; cycles around a tile; cycles for its rows' data
SCALAR = 4                                              # cycles of 32 loads of 4 bytes that are no neighbours
# Parameters that a kernel reads before it writes them. Others that are not const are written only.
UPDATED = {"epilogue_sums": {"dy"}, "sgd_step": {"w", "v"}, "linear_v5_sgd_step": {"w", "v"},
           "count_losses": {"counts"}, "count_correct": {"counts"}}


@dataclass
class Launch:
    """One launch; layer: whose, and in which pass."""

    layer: str
    file: str
    kernel: str
    blocks: int
    read: int
    written: int
    flop: float
    seconds: float
    bound: str
    instructions: int = 0
    registers: int = 0

    @property
    def moved(self) -> int:
        return self.read + self.written


class Launches:
    """A device of minicnn/backend/cuda that computes nothing. launches: (layer, file, kernel, grid, arguments,
    options, product).

    Its arrays are NumPy's, and of most of them no byte is ever touched.
    """

    architecture, shared, free_memory = "90", 227 * 1024, None
    empty, zeros, to_host = staticmethod(np.empty), staticmethod(np.zeros), staticmethod(np.asarray)
    from_host = upload = staticmethod(np.ascontiguousarray)

    def __init__(self):
        self.layer, self.launches, self.product = "", [], None

    def owns(self, array) -> bool:
        return isinstance(array, np.ndarray)

    def record_event(self):
        return lambda: None

    def compile(self, name: str, text: str, options: tuple[str, ...]):
        return name, options

    def function(self, compiled, kernel: str):
        return *compiled, kernel

    def launch(self, function, grid: tuple, block: tuple, arguments: tuple, shared: int) -> None:
        file, options, kernel = function
        product, self.product = self.product, None
        self.launches.append((self.layer, file, kernel, grid, arguments, options, product))


class PlannedOps(CudaOps):
    """Its products are known to the device, which is a Launches."""

    def _multiply(self, file: str, operation: str, product: Product, *arrays, **ending) -> None:
        self.device.product = product
        super()._multiply(file, operation, product, *arrays, **ending)

    def _update_by_product(self, product: Product, *arguments) -> None:
        self.device.product = product
        super()._update_by_product(product, *arguments)


def launches_of(batch: int, precision: str, *, float32: bool = False) -> list[tuple]:
    """Those of one training step, as it is captured. float32: activations are stored so in any precision."""
    device, (version, products) = Launches(), PRECISIONS[precision]
    net = our_network(device="reference")
    net.ops = PlannedOps(device, ON_HOPPER.get(version, version), products)
    if float32:
        net.ops.stored_dtype = lambda dtype: dtype
    for node in net.nodes:
        for name in ("forward", "backward"):
            setattr(node.layer, name, _named(device, f"{node.name} {name}", getattr(node.layer, name)))
    scale = LossScale(net.ops) if net.ops.needs_loss_scale else None
    sgd = SGD(net, decay=DECAY, **RECIPE)
    sgd.step = _named(device, "update", sgd.step)
    step = CapturedStep(net, sgd, scale, RunningMetrics())
    x = np.empty((batch, *net.input_shape), stored_dtype(net.nodes, net.dtype, net.ops))
    step.run(x, np.zeros(batch, np.int32), np.arange(batch), epoch=0)
    device.launches.clear()
    step.net.memory_version += 1                            # gradients exist now, and are overwritten from here on
    step.run(x, np.zeros(batch, np.int32), np.arange(batch), epoch=0)
    return device.launches


def _named(device: Launches, layer: str, function):
    def call(*arguments, **options):
        device.layer = layer
        function(*arguments, **options)
        device.layer = "metrics"
    return call


def predicted(launches: list[tuple], products: str, bandwidth: float) -> Iterator[Launch]:
    """Bytes, FLOP and seconds of each launch."""
    for layer, file, kernel, grid, arguments, _, product in launches:
        read, written = bytes_of(file, kernel, arguments)
        flop = 0.0 if product is None else 2.0 * product.M * product.N * product.depth * product.groups
        limits = {"memory": (read + written) / bandwidth, "launching": SHORTEST}
        if product is not None:
            sizes = [operand.itemsize for operand in arguments[:2]]
            limits |= {unit: cycles / CLOCK for unit, cycles in cycles_of(product, products, *sizes).items()}
        bound = max(limits, key=limits.get)
        yield Launch(layer, file, kernel, int(np.prod(grid)), read, written, flop, limits[bound], bound)


def bytes_of(file: str, kernel: str, arguments: tuple) -> tuple[int, int]:
    """Bytes read and written: each array once for reading and once for writing, however often a kernel does."""
    parameters = source.kernels(file)[kernel]
    given = {parameter.name: value for parameter, value in zip(parameters, arguments, strict=True)}
    read, written = {}, {}
    for parameter in parameters:
        array = given[parameter.name]
        if not parameter.pointer or array is None:
            continue
        if parameter.const or parameter.name in UPDATED.get(kernel, ()) or given.get("add"):
            read[array.ctypes.data] = array.nbytes
        if not parameter.const:
            written[array.ctypes.data] = array.nbytes
    return sum(read.values()), sum(written.values())


def cycles_of(product: Product, products: str, size_a: int = 4, size_b: int = 4) -> dict[str, float]:
    """Cycles of the busiest multiprocessor, for each unit that may be the limit. sizes: of an operand's elements."""
    rows, columns, size = product.rows, product.columns, 4 if products == "Tf32" else 2
    tensor = 2 * rows * columns * 32 / TENSOR_CORES[products]
    operands = (rows + rows // 64 * columns) * 32 * size + (rows + columns) * 32 * size     # read by them, and stored
    loaded = (rows * size_a + columns * size_b) * 32 / PIPE if product.packs else (rows + columns) * SCALAR
    pipe = operands / PIPE + loaded + KNOWN * rows / 256
    stages, together = -(-product.slice // 32), 1 if rows == 256 else 2                     # blocks on a multiprocessor
    blocks = int(np.prod(product.grid))
    waves = -(-blocks // (MULTIPROCESSORS * together)) * together
    return {"tensor cores": waves * (stages * tensor + AROUND), "shared memory": waves * (stages * pipe + AROUND)}


def compiled_sizes(launches: list[tuple], products: str) -> dict[tuple, tuple[int, int]]:
    """(file, kernel, options) -> instructions and registers, of the kernels compiled for an H100; {} without NVRTC."""
    from tests.cuda_emulator import nvrtc

    found = {}
    if nvrtc.library() is None:
        return found
    for file, options in dict.fromkeys((file, options) for _, file, _, _, _, options, _ in launches):
        text, arch = source.source(file), None if source.HOPPER in options else "90"
        cubin, log = nvrtc.compile_cubin(text, file, arch, options)
        registers = {kernel: used["registers"] for kernel, used in nvrtc.resources(log).items()}
        for kernel, nbytes in code_sizes(cubin).items():
            found[file, kernel, options] = nbytes // 16, registers[kernel]          # an instruction has 16 bytes
    return found


def code_sizes(cubin: bytes) -> dict[str, int]:
    """Kernel -> bytes of its code, from the sections .text.NAME of an ELF file."""
    start, size, count, names = struct.unpack_from("<Q", cubin, 40)[0], *struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, start + i * size) for i in range(count)]
    strings = sections[names][4]

    def name(offset: int) -> str:
        return cubin[strings + offset:cubin.index(b"\0", strings + offset)].decode()

    return {name(section[0]).removeprefix(".text."): section[5] for section in sections
            if name(section[0]).startswith(".text.")}


def table(rows: list[Launch]) -> str:
    lines = [f"{'layer':18s}{'kernel':34s}{'blocks':>8s}{'MB read':>9s}{'written':>9s}{'GFLOP':>8s}{'instr.':>8s}"
             f"{'regs':>6s}{'us':>8s}  bound by"]
    for row in rows:
        lines.append(f"{row.layer:18s}{row.kernel:34s}{row.blocks:8d}{row.read / 1e6:9.1f}{row.written / 1e6:9.1f}"
                     f"{row.flop / 1e9:8.1f}{row.instructions or '':>8}{row.registers or '':>6}{1e6 * row.seconds:8.1f}"
                     f"  {row.bound}")
    total = sum(row.seconds for row in rows)
    return "\n".join([*lines, f"{len(rows)} launches, {sum(row.moved for row in rows) / 1e9:.3f} GB moved, "
                      f"{sum(row.flop for row in rows) / 1e9:.0f} GFLOP, {1e3 * total:.2f} ms predicted"])


def main() -> None:
    title, _, rest = __doc__.partition("\n")
    parser = argparse.ArgumentParser(description=title, epilog=rest.strip("\n"),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="images (default: 128)")
    parser.add_argument("--precision", choices=[name for name in PRECISIONS if name != "fp32"], default="tf32",
                        help="of the products (default: tf32)")
    parser.add_argument("--gpu", choices=BANDWIDTH, default="h100", help="whose memory (default: h100)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the rows")
    options = parser.parse_args()
    if options.batch < 1:
        parser.error("--batch must be at least 1")
    products = PRECISIONS[options.precision][1]
    launches = launches_of(options.batch, options.precision)
    rows = list(predicted(launches, products, BANDWIDTH[options.gpu]))
    sizes = compiled_sizes(launches, products)
    for row, (_, file, kernel, _, _, given, _) in zip(rows, launches, strict=True):
        row.instructions, row.registers = sizes.get((file, kernel, given), (0, 0))
    print(table(rows))
    if products == "Bf16":
        wide = predicted(launches_of(options.batch, options.precision, float32=True), products, BANDWIDTH[options.gpu])
        print(f"{sum(row.moved for row in wide) / 1e9:.3f} GB with activations in float32")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
