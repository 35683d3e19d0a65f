"""All backends have the same operations, arguments and defaults, and report which function runs."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

from minicnn.backend.ops import BACKENDS, OPS, Ops
from minicnn.backend.select import get_ops
from minicnn.errors import DeviceError

ALL = [function for functions in OPS.values() for function in functions]


def arguments(function) -> list[tuple]:
    """Name, kind and default of each; annotations are free."""
    function = getattr(function, "py_func", function)
    return [(p.name, p.kind.description, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", ALL)
def test_same_arguments_everywhere(ops, reference, name):
    assert arguments(getattr(ops, name)) == arguments(getattr(reference, name))


@pytest.mark.parametrize("module", OPS)
def test_no_public_operation_outside_the_list(reference, module):
    """What is named like an operation of the reference is one: a forward that is not in OPS would go untested."""
    functions = vars(importlib.import_module(f"minicnn.kernels.reference.{module}"))
    endings = ("_forward", "_backward", "_work", "_algorithm", "_data", "_weights", "_step", "_losses", "_correct",
               "_overflow", "_scale", "_statistics", "_advance")
    named_so = {name for name in functions if name.endswith(endings) and name[0] != "_"}
    assert named_so == set(OPS[module]) - {"accumulate"}


def test_report_names_every_operation_once(ops):
    lines = [line.split() for line in ops.report().splitlines()]
    assert [line[0] for line in lines] == ALL
    assert all(f".{ops.name}." in line[1] for line in lines)


def test_unknown_backend_is_refused():
    with pytest.raises(DeviceError, match="unknown device 'tpu'.*reference.*cpu"):
        get_ops("tpu")


def test_backend_without_an_operation_is_refused(monkeypatch):
    monkeypatch.setitem(OPS, "sgd", ("sgd_step", "sgd_leap"))
    with pytest.raises(DeviceError, match="lacks the operation sgd_leap"):
        Ops("broken", "minicnn.kernels.reference")


def test_the_reference_needs_numpy_alone():
    """Shapes are computed with its operations, by Builder for one: neither Numba nor CuPy is loaded for that."""
    code = ("import sys; from minicnn.backend.select import get_ops; get_ops('reference'); "
            "print({'numba', 'llvmlite', 'cupy'} & sys.modules.keys())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_every_backend_is_tested():
    assert BACKENDS[0] == "reference" and get_ops("auto").name in BACKENDS
