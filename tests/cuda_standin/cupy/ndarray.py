"""cupy.ndarray: an array that NumPy cannot read. What CuPy refuses is refused here, with the same kind of error."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from .cuda.memory import Device, allocate
from .cuda.stream import must_not_capture

# NumPy's functions that may be called with arrays of CuPy, which has them all under the same names.
FUNCTIONS = {"sum", "mean", "max", "min", "any", "all", "argmax", "isfinite", "zeros_like", "empty_like", "array_equal",
             "ndim", "shape", "size", "copyto", "concatenate", "stack", "ascontiguousarray", "transpose", "where"}


class ndarray(NDArrayOperatorsMixin):                                                                   # noqa: N801
    """An array in the memory of the stand-in's GPU."""

    def __init__(self, values: np.ndarray):
        self.values = values                                # for the stand-in alone: CuPy has no such attribute

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy "
                        "array explicitly.")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if out is not None:
            options["out"] = out
        result = _compute(f"np.{ufunc.__name__}", getattr(ufunc, method), *inputs, **options)
        return result if out is None else out[0]

    def __array_function__(self, function, types, arguments, options):
        if function.__name__ not in FUNCTIONS:
            raise TypeError(f"cupy.ndarray: the stand-in does not have numpy.{function.__name__}")
        return _compute(f"np.{function.__name__}", function, *arguments, **options)

    # ---- what it is
    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)
    size = property(lambda self: self.values.size)
    nbytes = property(lambda self: self.values.nbytes)
    itemsize = property(lambda self: self.values.itemsize)
    ndim = property(lambda self: self.values.ndim)
    strides = property(lambda self: self.values.strides)
    flags = property(lambda self: self.values.flags)
    data = property(lambda self: SimpleNamespace(ptr=self.values.ctypes.data))
    device = property(lambda self: Device(0))

    def __len__(self):
        return len(self.values)

    def __repr__(self):
        return f"cupy.{self.values!r}"

    # ---- views
    T = property(lambda self: ndarray(self.values.T))

    def __getitem__(self, key):
        key = _key(key) if isinstance(key, tuple) else (_key(key),)
        return ndarray(self.values[key if any(part is ... for part in key) else (*key, ...)])   # never a number

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape):
        return ndarray(self.values.reshape(*shape))

    def ravel(self):
        return ndarray(self.values.ravel())

    def transpose(self, *axes):
        return ndarray(self.values.transpose(*axes))

    def view(self, dtype):
        return ndarray(self.values.view(dtype))

    # ---- computed on the GPU
    def __setitem__(self, key, value):
        def assign(target, value):
            target[_key(key)] = value
        _compute("an assignment", assign, self, value)

    def fill(self, value):
        self[...] = value

    def copy(self):
        return _compute("a copy", np.copy, self)

    def astype(self, dtype, copy=True):
        return _compute("astype", np.ndarray.astype, self, dtype)

    def sum(self, *arguments, **options):
        return _compute("sum", np.sum, self, *arguments, **options)

    def mean(self, *arguments, **options):
        return _compute("mean", np.mean, self, *arguments, **options)

    def max(self, *arguments, **options):
        return _compute("max", np.max, self, *arguments, **options)

    def any(self, *arguments, **options):
        return _compute("any", np.any, self, *arguments, **options)

    def all(self, *arguments, **options):
        return _compute("all", np.all, self, *arguments, **options)

    def argmax(self, *arguments, **options):
        return _compute("argmax", np.argmax, self, *arguments, **options)

    # ---- to and from the host
    def get(self, stream=None, order="C", out=None, blocking=True) -> np.ndarray:
        must_not_capture("a copy to the host")
        if out is None:
            return np.array(self.values, order=order)
        if (out.shape, out.dtype) != (self.shape, self.dtype):
            raise ValueError(f"Shape or dtype mismatch: {out.shape} {out.dtype} and {self.shape} {self.dtype}")
        out[...] = self.values
        return out

    def set(self, array: np.ndarray, stream=None):
        must_not_capture("a copy from the host")
        if not isinstance(array, np.ndarray):
            raise TypeError(f"Only numpy.ndarray can be set to cupy.ndarray, not {type(array)}")
        if (array.shape, array.dtype) != (self.shape, self.dtype):
            raise ValueError(f"Shape or dtype mismatch: {array.shape} {array.dtype} and {self.shape} {self.dtype}")
        self.values[...] = array

    def tolist(self):
        return self.get().tolist()

    def item(self, *arguments):
        return self.get().item(*arguments)

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    __hash__ = object.__hash__


def _values(value):
    """The argument as NumPy's function takes it. TypeError for arrays of NumPy, which CuPy refuses as well."""
    if isinstance(value, ndarray):
        return value.values
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return type(value)(map(_values, value)) if isinstance(value, (list, tuple)) else value


def _key(key):
    """An index, as NumPy takes it. Arrays and lists of the host are copied to the GPU, as CuPy does."""
    if isinstance(key, tuple):
        return tuple(map(_key, key))
    if isinstance(key, (np.ndarray, list)):
        must_not_capture("an index that is an array of the host")
    return key.values if isinstance(key, ndarray) else key


def _compute(what: str, function, *arguments, **options):
    """A function of NumPy on arrays of the GPU. Results are arrays of the GPU, those without axes too.

    CuPy can capture it. No step of minicnn needs that, and the stand-in captures launches alone.
    """
    must_not_capture(what)
    result = function(*map(_values, arguments), **{name: _values(value) for name, value in options.items()})
    return asarray(result) if isinstance(result, (np.ndarray, np.generic)) else result


# ---- new arrays
def empty(shape, dtype=float) -> ndarray:
    """Its bytes are 255: NaN in floats."""
    return ndarray(allocate(shape, dtype))


def full(shape, value, dtype=None) -> ndarray:
    must_not_capture("full")
    array = empty(shape, np.asarray(value).dtype if dtype is None else dtype)
    array.values[...] = value
    return array


def zeros(shape, dtype=float) -> ndarray:
    return full(shape, 0, dtype)


def asarray(array, dtype=None) -> ndarray:
    if isinstance(array, ndarray):
        return array
    must_not_capture("a copy from the host")
    array = np.asarray(array, dtype)
    copy = empty(array.shape, array.dtype)
    copy.values[...] = array
    return copy


def ascontiguousarray(array) -> ndarray:
    if not isinstance(array, ndarray):
        return asarray(array)
    return array if array.flags.c_contiguous else array.copy()


def asnumpy(array) -> np.ndarray:
    return array.get() if isinstance(array, ndarray) else np.asarray(array)
