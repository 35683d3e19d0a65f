"""The CUDA backend: every operation as launches of the kernels in kernels/cuda (launcher.py launches them)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import prod

import numpy as np

from minicnn.backend.cuda import device as gpu
from minicnn.backend.cuda.gemm_tiling import ConvShape, Product, conv_shape, linear_products
from minicnn.backend.cuda.launcher import THREADS, VECTOR_BYTES, Launcher, aligned, ceil_div
from minicnn.backend.interconnect import Interconnect
from minicnn.backend.ops import OPS, DeviceNumber, Ops, address
from minicnn.errors import DeviceError
from minicnn.rng import key_words

# Version of the matrix products -> version in linear.cu, where 1 and 2 are the same.
LINEAR = {"v1": "v1", "v2": "v1", "v3": "v3", "v4": "v4", "v5": "v5"}
# Precision of matrix products of float32 arrays -> version, and the type its tensor cores read. Arrays and sums are
# float32 in any case: "tf32" and "fp16" round the factors to 10 bits of mantissa and "bf16" to 7, to be faster.
# fp16 also has a smaller range, nothing below 2^-24: its gradients need loss scaling (train/loss_scale.py).
PRECISIONS = {"fp32": ("v3", "Tf32"), "tf32": ("v4", "Tf32"), "bf16": ("v4", "Bf16"), "fp16": ("v4", "Fp16")}
PRECISION = "tf32"          # the default; another one is chosen as "cuda:fp32"
CHUNKS = 1024               # at most, of a sum over rows: several blocks for each multiprocessor
ON_HOPPER = {"v4": "v5"}    # what replaces a version on an H100 or H200
# Elementwise operations: each is one launch of the kernel of the same name, over the elements of its first array.
# Operation -> file of kernels/cuda, and the operation's arguments -> those of its kernel.
ELEMENTWISE = {
    "relu_forward": ("activation", lambda x, y: (x, y, x.size)),
    "relu_backward": ("activation", lambda y, dy, dx: (y, dy, dx, y.size)),
    "leaky_relu_forward": ("activation", lambda x, y, *, slope: (x, y, x.size, slope)),
    "leaky_relu_backward": ("activation", lambda y, dy, dx, *, slope: (y, dy, dx, y.size, slope)),
    "clipped_relu_forward": ("activation", lambda x, y, *, ceiling: (x, y, x.size, ceiling)),
    "clipped_relu_backward": ("activation", lambda y, dy, dx, *, ceiling: (y, dy, dx, y.size, ceiling)),
    "tanh_forward": ("activation", lambda x, y: (x, y, x.size)),
    "tanh_backward": ("activation", lambda y, dy, dx: (y, dy, dx, y.size)),
    "scale_forward": ("dropout", lambda x, y, *, factor: (x, y, x.size, factor)),
    "find_overflow": ("loss_scale", lambda dw, state: (dw, state, dw.size)),
}


def make_ops(precision: str = PRECISION) -> Ops:
    """The operations on the current GPU. Raises DeviceError, with the reason, where there is none that works."""
    if precision not in PRECISIONS:
        raise DeviceError(f"unknown precision {precision!r} of device 'cuda': expected one of {', '.join(PRECISIONS)}")
    device, (version, products) = gpu.CupyDevice(), PRECISIONS[precision]
    return CudaOps(device, ON_HOPPER.get(version, version) if device.architecture == "90" else version, products)


class CudaOps(Ops):
    """All operations on one device.

    version: of the matrix products, a key of TILES (see kernels/README.md).   products: the type that versions 4 and 5
    multiply.
    """

    def __init__(self, device, version: str, products: str):
        self.name, self.device, self.version, self.products = "cuda", device, version, products
        self.spec = next((f"cuda:{name}" for name, (of, reads) in PRECISIONS.items()
                          if reads == products and version in (of, ON_HOPPER.get(of))), "cuda")
        self.empty, self.zeros, self.to_host = device.empty, device.zeros, device.to_host
        self.record_event = device.record_event
        self.needs_loss_scale = products == "Fp16"
        self._gpu = Launcher(device, products)
        missing = [op for group in OPS.values() for op in group if not hasattr(self, op)]
        if missing:
            raise DeviceError(f"backend 'cuda' lacks the operation {missing[0]}, expected in {type(self).__module__}")

    def from_host(self, array):
        """The array on the device; one that is already there is returned as it is."""
        return array if self.device.owns(array) and array.flags.c_contiguous else self.device.from_host(array)

    def upload(self, array):
        """See Ops."""
        return array if self.device.owns(array) else self.device.upload(array)

    def capture(self, function):
        """See Ops; the result keeps the captured arrays alive. Nothing in `function` may need the host."""
        return self._gpu.capture(function)

    def interconnect(self, local_rank: int = 0) -> Interconnect:
        return self.device.interconnect(local_rank)

    # ---- epilogue
    def epilogue_backward(self, dy, db, *, y=None, add=True):
        """In place: dy is masked by y > 0 where y is given; then db += its sum over rows, unless db is None."""
        if db is None:
            if y is not None:
                self.relu_backward(y, dy, dy)
            return
        K = dy.shape[-1]
        rows = dy.size // K
        packs = self._gpu.packs(K, dy, y)
        columns = K // (VECTOR_BYTES // dy.dtype.itemsize) if packs else K
        wide = min(32, columns)
        tall, across = THREADS // wide, ceil_div(columns, wide)
        chunk = max(4 * tall, ceil_div(rows, max(1, CHUNKS // across)))
        chunks = ceil_div(rows, chunk)
        (partial,) = self._gpu.scratch([(chunks, K)], dy.dtype)
        self._gpu.launch("epilogue", "epilogue_sums", (across, chunks), (dy, y, partial, rows, K, chunk, packs),
                         block=(wide, tall))
        self._gpu.launch("epilogue", "epilogue_add", ceil_div(K, 32), (partial, db, chunks, K, int(add)),
                         block=(32, 32))

    # ---- combine
    def concat_forward(self, xs, y):
        """y (..., C0+C1+...) from arrays (..., C0), (..., C1) ..."""
        start, total = 0, y.shape[-1]
        for x in xs:
            width = x.shape[-1]
            self._gpu.each("combine", "copy_channels", x.size, x, y, x.size // width, width, width, 0, total, start)
            start += width

    def concat_backward(self, dy, dxs, *, widths):
        """dxs[i] = its channels of dy; entries of dxs may be None."""
        start, total = 0, dy.shape[-1]
        for dx, width in zip(dxs, widths, strict=True):
            if dx is not None:
                self._gpu.each("combine", "copy_channels", dx.size, dy, dx, dx.size // width, width, total, start,
                               width, 0)
            start += width

    def _copy(self, x, y) -> None:
        self._gpu.each("combine", "copy_channels", x.size, x, y, 1, x.size, x.size, 0, x.size, 0)

    def add_forward(self, xs, y):
        """y = x0 + x1 + ..., all of the same shape."""
        if len(xs) == 1:
            self._copy(xs[0], y)
            return
        self._gpu.each("combine", "add", y.size, xs[0], xs[1], y, y.size)
        for x in xs[2:]:
            self.accumulate(x, y)

    def add_backward(self, dy, dxs):
        """dxs[i] = dy; entries may be None."""
        for dx in dxs:
            if dx is not None:
                self._copy(dy, dx)

    def accumulate(self, x, y):
        """y += x."""
        self._gpu.each("combine", "add", y.size, y, x, y, y.size)

    # ---- dropout
    def dropout_forward(self, x, y, *, rate, scale, seed, purpose, epoch, sample_ids):
        """y = x * scale where u >= the dropout rate, else 0; sample_ids uint32 (N,), host or device. y may be x."""
        N, units = x.shape[0], x.size // x.shape[0]
        k0, k1 = key_words(seed)
        epoch = (0, epoch.array) if isinstance(epoch, DeviceNumber) else (epoch, None)
        self._gpu.launch("dropout", "dropout", ceil_div(N * ceil_div(units, 4), THREADS),
                         (x, y, N, units, rate, scale, k0, k1, *epoch, purpose, self.from_host(sample_ids)))

    def dropout_backward(self, dy, dx, *, rate, scale, seed, purpose, epoch, sample_ids):
        """dx = dy * the same mask. dx may be dy."""
        self.dropout_forward(dy, dx, rate=rate, scale=scale, seed=seed, purpose=purpose, epoch=epoch,
                             sample_ids=sample_ids)

    # ---- loss
    def softmax_forward(self, x, y):
        """y (N, K), the probabilities of each row of x. y may be x."""
        N, K = x.shape
        self._gpu.launch("loss", "softmax_forward", ceil_div(N, 4), (x, y, N, K), block=128)

    def softmax_cross_entropy_forward(self, x, labels, probs, losses):
        """probs (N, K) and losses (N,) from x (N, K) and labels int32 (N,)."""
        N, K = x.shape
        self._gpu.launch("loss", "softmax_cross_entropy_forward", ceil_div(N, 4), (x, labels, probs, losses, N, K),
                         block=128)

    def softmax_cross_entropy_backward(self, probs, labels, dx, *, scale, loss_scale=None):
        """dx = scale * (probs - onehot), times the power of two of loss_scale."""
        N, K = probs.shape
        self._gpu.launch("loss", "softmax_cross_entropy_backward", ceil_div(N * K, THREADS),
                         (probs, labels, dx, N, K, scale, loss_scale))

    # ---- running_metrics
    def count_losses(self, losses, counts, *, weight):
        """counts[1] += weight * sum of losses (N,)."""
        self._gpu.launch("running_metrics", "count_losses", 1, (losses, counts, len(losses), weight), block=32)

    def count_correct(self, x, labels, counts):
        """counts[0] += N, counts[2] and counts[3] += top-1 and top-5 correct, of x (N, K), labels int32 (N,)."""
        self._gpu.launch("running_metrics", "count_correct", 1, (x, labels, counts, *x.shape), block=1024)

    # ---- loss_scale
    def next_loss_scale(self, state, *, steady, lowest, highest):
        """The state for the next step: one higher after `steady` good ones, one lower after an overflow."""
        self._gpu.launch("loss_scale", "next_loss_scale", 1, (state, steady, lowest, highest), block=1)

    # ---- sgd
    def sgd_step(self, w, dw, v, *, lr, momentum, decay, loss_scale=None):
        """One step, in place, on w and v; none after an overflow."""
        lr = (lr.factor, lr.array) if isinstance(lr, DeviceNumber) else (lr, None)
        self._gpu.each("sgd", "sgd_step", w.size, w, dw, v, w.size, *lr, momentum, decay, loss_scale)

    # ---- augment
    def augment_forward(self, images, y, *, mean, top, left, flip, shift):
        """y (N, H, W, C) from images (N, A, B, C) uint8; see kernels/reference/augment.py."""
        _, A, B, C = images.shape
        N, H, W, _ = y.shape
        self._gpu.launch("augment", "augment_forward", (N * H, ceil_div(W * C, THREADS)),
                         (images, y, mean, top, left, flip, shift, A, B, C, H, W, int(mean.shape == images.shape[1:])))

    # ---- pool
    def _windows(self, kernel_name: str, rows: int, columns: int, arrays: tuple, x_shape, y_shape, kernel, stride, pads,
                 *flags) -> None:
        """A pooling kernel: a row of blocks for each of `rows`, of `columns` pixels and C channels."""
        (_, H, W, C), (_, P, Q, _) = x_shape, y_shape
        given = [array for array in arrays if array is not None]
        packs = self._gpu.packs(C, *(array for array in given if array.dtype.kind == "f"))
        packs &= all(address(array) % 4 == 0 for array in given)                # argmax: four bytes at a time
        width = VECTOR_BYTES // arrays[0].dtype.itemsize if packs else 1
        window = {"W": W, "Q": Q, "R": kernel[0], "S": kernel[1], "top": pads[0], "left": pads[1], "H": H, "P": P,
                  "C": C, "stride_h": stride[0], "stride_w": stride[1]}
        self._gpu.launch("pool", kernel_name, (rows, ceil_div(columns * C, THREADS * width)),
                         (*arrays, window, *flags, packs))

    def maxpool_forward(self, x, y, argmax, *, kernel, stride, pads):
        """y (N, P, Q, C), the largest cell of each window; argmax (uint8, or None): its index r*S + s."""
        N, P, Q, _ = y.shape
        self._windows("maxpool_forward", N * P, Q, (x, y, argmax), x.shape, y.shape, kernel, stride, pads)

    def maxpool_backward(self, dy, argmax, dx, *, kernel, stride, pads):
        """dx (N, H, W, C), overwritten, from dy and argmax (N, P, Q, C)."""
        N, H, W, _ = dx.shape
        self._windows("maxpool_backward", N * H, W, (dy, argmax, dx), dx.shape, dy.shape, kernel, stride, pads)

    def avgpool_forward(self, x, y, *, kernel, stride, pads, count_pad):
        """y (N, P, Q, C), the mean of each window."""
        N, P, Q, _ = y.shape
        self._windows("avgpool_forward", N * P, Q, (x, y), x.shape, y.shape, kernel, stride, pads, int(count_pad))

    def avgpool_backward(self, dy, dx, *, kernel, stride, pads, count_pad):
        """dx (N, H, W, C), overwritten, from dy (N, P, Q, C)."""
        N, H, W, _ = dx.shape
        self._windows("avgpool_backward", N * H, W, (dy, dx), dx.shape, dy.shape, kernel, stride, pads, int(count_pad))

    # ---- lrn
    def _lrn_across(self, kernel: str, arrays: tuple, tiles: int, margins: int, n, k, alpha, beta, groups) -> None:
        x, tile = arrays[0], 1024                                   # TILE of lrn.cu
        D = x.shape[-1] // groups
        half = min(n // 2, D - 1)
        if x.dtype == np.float32 and 1 <= half <= 4 and self._gpu.packs(D, *arrays):
            halo = 1 if half <= 2 or kernel == "lrn_forward" else 2
            self._gpu.launch("lrn", f"{kernel}_packs", ceil_div(x.size // 4, THREADS // 32 * (32 - 2 * halo)),
                             (*arrays, x.size // 4, D // 4, half, k, alpha, beta))
            return
        self._gpu.launch("lrn", kernel, ceil_div(x.size, tile), (*arrays, x.size, D, half, k, alpha, beta),
                         shared=(tiles * tile + margins * half) * x.dtype.itemsize)

    def lrn_forward(self, x, y, *, n, k, alpha, beta, groups=1):
        """y (N, H, W, C) from x, normalised over n channels inside each of `groups` parts of the C channels."""
        self._lrn_across("lrn_forward", (x, y), 1, 2, n, k, alpha, beta, groups)

    def lrn_backward(self, x, dy, dx, *, n, k, alpha, beta, groups=1):
        """dx (N, H, W, C), overwritten; dx must not be dy."""
        self._lrn_across("lrn_backward", (x, dy, dx), 3, 6, n, k, alpha, beta, groups)

    def lrn_within_forward(self, x, y, *, n, k, alpha, beta):
        """y (N, H, W, C) from x, normalised over n x n pixels of the same map."""
        _, H, W, C = x.shape
        self._gpu.launch("lrn", "lrn_within_forward", ceil_div(x.size, THREADS),
                         (x, y, H, W, C, x.size, n // 2, k, alpha, beta))

    def lrn_within_backward(self, x, dy, dx, *, n, k, alpha, beta):
        """dx (N, H, W, C), overwritten; dx must not be dy."""
        (_, H, W, C), blocks = x.shape, ceil_div(x.size, THREADS)
        (cross,) = self._gpu.scratch([x.shape], x.dtype)
        self._gpu.launch("lrn", "lrn_within_terms", blocks, (x, dy, dx, cross, H, W, C, x.size, n // 2, k, alpha, beta))
        self._gpu.launch("lrn", "lrn_within_backward", blocks, (x, cross, dx, H, W, C, x.size, n // 2, alpha, beta))

    # ---- matrix products
    def _multiply(self, file: str, operation: str, product: Product, a, b, result, partial, sizes: dict,
                  **ending) -> None:
        """A product of conv.cu or linear.cu. ending: those of bias, relu and add that the kernel takes.   partial: for
        the sums of the slices, if there are several; they are added up afterwards."""
        version = LINEAR[product.version] if file == "linear" else product.version
        hopper, slices = version == "v5", product.slices
        given = ending if slices == 1 else dict.fromkeys(ending, 0) | ({"bias": None} if "bias" in ending else {})
        self._gpu.launch(f"{file}_hopper" if hopper else file, f"{file}_{version}_{operation}", product.grid,
                         (a, b, result if slices == 1 else partial, *given.values(), product.slice,
                          *([] if hopper else [int(product.packs)]), sizes),
                         block=product.threads, shared=product.shared(self.products), options=product.options)
        if slices > 1:
            ending = {"bias": None, "relu": 0, "add": 0} | ending
            self._gpu.launch(file, f"{file}_add_slices", ceil_div(result.size, THREADS),
                             (partial, result, *ending.values(), slices, result.size, result.shape[-1]))

    def _version(self, dtype) -> str:
        """The version for products in this type: doubles are not rounded, so they cannot use the tensor cores."""
        return "v3" if self.version in ("v4", "v5") and np.dtype(dtype) == np.float64 else self.version

    # ---- linear
    def linear_forward(self, x, w, y, *, epilogue=(None, False), work=None):
        """y (N, out) from x (N, in) and w (in, out); epilogue = (bias (out,) or None, apply ReLU)."""
        packs = self._gpu.packs(x.shape[1], x) & self._gpu.packs(w.shape[1], w)
        self._linear("forward", x, w, y, x.shape, w.shape, packs, work, bias=epilogue[0], relu=int(epilogue[1]))

    def linear_backward_data(self, dy, w, dx, *, work=None):
        """dx (N, in), overwritten, from dy (N, out) and w (in, out)."""
        self._linear("backward_data", dy, w, dx, dx.shape, w.shape, self._gpu.packs(w.shape[1], dy, w), work)

    def linear_backward_weights(self, x, dy, dw, *, add=True, work=None):
        """dw (in, out) += from x (N, in) and dy (N, out); without `add`, dw =."""
        packs = self._gpu.packs(dw.shape[0], x) & self._gpu.packs(dw.shape[1], dy)
        self._linear("backward_weights", x, dy, dw, x.shape, dw.shape, packs, work, add=int(add))

    def _linear(self, operation: str, a, b, result, x_shape, w_shape, packs: int, work, **ending) -> None:
        product = linear_products(x_shape, w_shape, self._version(result.dtype), bool(packs))[operation]
        partial = self._gpu.arrays_in(work, [product.partial], result.dtype)[0] if product.slices > 1 else None
        self._multiply("linear", operation, product, a, b, result, partial,
                       {"N": x_shape[0], "I": w_shape[0], "O": w_shape[1]}, **ending)

    def linear_work(self, x_shape, w_shape, dtype):
        """Bytes of work space for any of the three."""
        return max(aligned(product.most_partial * np.dtype(dtype).itemsize)
                   for product in linear_products(x_shape, w_shape, self._version(dtype)).values())

    # ---- conv: version 1 writes the matrix X of all windows to the work space, later versions do not store it
    def conv_forward(self, x, w, y, *, stride, pads, groups=1, epilogue=(None, False), work=None):
        """y (N, P, Q, K) from x (N, H, W, C) and w (R, S, C/G, K); epilogue = (bias (K,) or None, apply ReLU)."""
        shape = conv_shape(x.shape, w.shape, stride, pads, groups)
        self._convolve("forward", x, w, y, shape, shape.packs(self._gpu, x, w), work, bias=epilogue[0],
                       relu=int(epilogue[1]))

    def conv_backward_data(self, dy, w, dx, *, stride, pads, groups=1, work=None):
        """dx (N, H, W, C), overwritten, from dy (N, P, Q, K) and w (R, S, C/G, K)."""
        shape = conv_shape(dx.shape, w.shape, stride, pads, groups)
        self._convolve("backward_data", dy, w, dx, shape, self._gpu.packs(shape.sizes["L"], dy, w), work)

    def conv_backward_weights(self, x, dy, dw, *, stride, pads, groups=1, add=True, work=None):
        """dw (R, S, C/G, K) += from x (N, H, W, C) and dy (N, P, Q, K); without `add`, dw =, whatever it held."""
        shape = conv_shape(x.shape, dw.shape, stride, pads, groups)
        self._convolve("backward_weights", x, dy, dw, shape, shape.packs(self._gpu, x, dy), work, add=int(add))

    def _convolve(self, operation: str, a, b, result, shape: ConvShape, packs: int, work, **ending) -> None:
        version = self._version(result.dtype)
        product = shape.products(version, bool(packs))[operation]
        X = partial = None
        if version == "v1" or product.slices > 1:
            X, partial = self._gpu.arrays_in(work, [shape.windows(version), product.partial], result.dtype)
        to, geometry = result, shape.geometry(operation, version, bool(packs))
        if version == "v1" and operation == "backward_data":
            to = X
        elif version == "v1":
            self._gpu.launch("conv", "conv_im2col", ceil_div(X.size, THREADS), (a, X, geometry))
            a = X
        self._multiply("conv", operation, product, a, b, to, partial, geometry, **ending)
        if to is not result:
            self._gpu.launch("conv", "conv_col2im", ceil_div(result.size, THREADS), (X, result, geometry))

    def conv_work(self, x_shape, w_shape, dtype, *, stride, pads, groups=1):
        """Bytes of work space for any of the three."""
        shape, version = conv_shape(x_shape, w_shape, stride, pads, groups), self._version(dtype)
        size = np.dtype(dtype).itemsize
        return aligned(prod(shape.windows(version)) * size) + max(
            aligned(product.most_partial * size) for product in shape.products(version).values())

    def conv_algorithm(self, x_shape, w_shape, dtype, *, stride, pads, groups=1):
        """The name of the algorithm."""
        version = self._version(dtype)
        rounded = f", {self.products.lower()}" if version in ("v4", "v5") else ""
        return ("im2col" if version == "v1" else "implicit im2col") + f" {version}{rounded}"


def _elementwise(name: str, file: str, arguments: Callable) -> Callable:
    """The method of CudaOps for one row of ELEMENTWISE, with the signature of its `arguments`."""
    def operation(self, *given, **options):
        values = arguments(*given, **options)
        self._gpu.each(file, name, values[0].size, *values)

    operation.__name__ = operation.__qualname__ = arguments.__qualname__ = name
    own = inspect.signature(operation).parameters["self"]
    operation.__signature__ = inspect.Signature([own, *inspect.signature(arguments).parameters.values()])
    return operation


for _name, _row in ELEMENTWISE.items():
    setattr(CudaOps, _name, _elementwise(_name, *_row))
