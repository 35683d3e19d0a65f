"""A network of one's own: FILE.py:FUNCTION, a function that returns a Net.

The function is called with those of its parameters that are called num_classes, device, seed, dtype or values. Layers
that the file defines may be used in the network.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from minicnn.errors import ConfigError, DeviceError, expected_one_of
from minicnn.graph import Net

_LOADED: dict[str, ModuleType] = {}
EXPECTED = "expected FILE.py:FUNCTION, a function that returns a Net"


def is_own(model: str) -> bool:
    """Whether this is meant as FILE.py:FUNCTION, and not as the name of a model."""
    return ".py" in model or os.sep in model


def split(model: str) -> tuple[str, str]:
    """(absolute path of the file, function) of "FILE.py:FUNCTION"."""
    path, _, function = model.rpartition(":") if not model.endswith(".py") else (model, "", "")
    if not path.endswith(".py"):
        raise ConfigError(f"{model}: {EXPECTED}")
    return os.path.abspath(path), function


def absolute(model: str) -> str:
    """FILE.py:FUNCTION with the file's whole path."""
    return ":".join(split(model))


def short(model: str) -> str:
    """FILE.py:FUNCTION without the folders."""
    return os.path.basename(model)


def function_of(model: str) -> Callable[..., Net]:
    """The function that is meant. ConfigError where there is no such file or function, or the file cannot be run."""
    path, name = split(model)
    module = load_file(path)
    own = [key for key, value in vars(module).items() if inspect.isfunction(value) and value.__module__ ==
           module.__name__ and not key.startswith("_")]
    if not name:
        raise ConfigError(f"{path} is a file: {EXPECTED}, such as {short(path)}:{own[0] if own else 'my_net'}")
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{path} has no function {name!r}: "
                          + (expected_one_of(name, own) if own else "it defines none"))
    return function


def build(model: str, **common) -> Net:
    """The network that the function returns.

    common: num_classes, device, seed, dtype, values; one that is None is left to the function. ConfigError, in one line
    with the file and its line, where the function raises or returns something else.
    """
    path, name = split(model)
    function = function_of(model)
    parameters = inspect.signature(function).parameters.values()
    taken = {p.name: common[p.name] for p in parameters if common.get(p.name) is not None}
    missing = [p.name for p in parameters if p.name not in taken and p.default is p.empty
               and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if missing == ["num_classes"]:
        raise ConfigError(f"{path}: {name} needs num_classes: add --classes K")
    if missing:
        raise ConfigError(f"{path}: {name} has a parameter {missing[0]!r} without a default; expected none, or some of "
                          f"{', '.join(common)}")
    net = _run(path, lambda: function(**taken))
    if not isinstance(net, Net):
        raise ConfigError(f"{path}: {name} returned {type(net).__name__}, expected a minicnn.Net, such as that of "
                          "Builder.net()")
    if "device" not in taken and common.get("device") not in (None, "auto", net.ops.spec):
        net = net.copy(device=common["device"])
    return net


def load_file(path: str) -> ModuleType:
    """The file as a module of its own name, executed once; the files beside it can be imported from it."""
    name = Path(path).stem
    found = sys.modules.get(name)
    if found is not None and found is _LOADED.get(path):
        return found
    if not os.path.isfile(path):
        raise ConfigError(f"{path} does not exist; {EXPECTED}")
    if name in sys.stdlib_module_names or found not in (None, *_LOADED.values()):
        raise ConfigError(f"{path}: another module is called {name!r}; rename the file")
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    if (folder := os.path.dirname(path)) not in sys.path:
        sys.path.append(folder)
    try:
        _run(path, lambda: spec.loader.exec_module(module))
    except BaseException:
        del sys.modules[name]
        raise
    _LOADED[path] = module
    return module


def _run(path: str, work: Callable):
    """work(), whose errors are the user's own: one line that names the file and the line in it."""
    try:
        return work()
    except DeviceError:                                 # of this installation, not of the file
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == path else lines[-1:]
        where = f"{path}, line {line if isinstance(line, int) else line[0]}" if line else path
        said = (str(getattr(error, "msg", None) or error).splitlines() or [""])[0]
        raise ConfigError(f"{where}: {type(error).__name__}{': ' if said else ''}{said}") from error
