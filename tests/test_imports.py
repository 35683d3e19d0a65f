"""Dependencies between packages are acyclic, files have no circular imports, and `import minicnn` is fast.

ALLOWED is the dependency graph: each package may import itself and the packages listed for it, nothing else. To print
all existing edges: pytest tests/test_imports.py -s. Imports inside `if TYPE_CHECKING:` never run and are not checked.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEAVES = {"arena", "errors", "shapes", "rng", "param", "init", "ranks", "system", "pretrained"}
PARTS = {"checks", "description", "backprop", "summary", "trace", "weights"}         # the parts of graph.py's Net
NET = {"leaves", "backend", "layers", "plan", *PARTS, "graph", "builder", "models"}

ALLOWED = {
    "leaves": set(),
    "kernels": {"leaves"},                          # and each folder of kernels only itself: see `package`
    "backend": {"leaves", "kernels"},
    "layers": {"leaves"},
    "plan": {"leaves", "layers", "backend"},
    "checks": {"leaves", "layers", "plan"},
    "description": {"leaves", "layers", "plan", "checks", "weights"},
    "backprop": {"leaves", "layers", "plan"},
    "summary": {"plan"},
    "trace": {"leaves", "checks"},
    "weights": {"leaves"},
    "graph": {"leaves", "layers", "backend", "plan", *PARTS},
    "builder": {"leaves", "layers", "backend", "plan", "checks", "graph"},
    "models": {"leaves", "layers", "graph", "builder"},
    "gradcheck": NET,
    "data": {"leaves", "backend", "kernels"},       # sums over pixels are compiled as kernels are
    "parallel": NET,
    "interop": NET | {"data"},
    "evaluate": NET | {"data"},
    "train": NET | {"data", "evaluate"},
    "visualize": NET | {"data", "evaluate", "train"},
    "experiment": NET | {"data", "evaluate", "train", "visualize", "parallel", "interop"},
    "explore": NET | {"data", "evaluate", "train", "visualize", "experiment"},
    "report": NET | {"data", "evaluate", "train", "visualize", "experiment"},
    "__main__": {"cli"},
    "cli": NET | {"data", "evaluate", "train", "visualize", "parallel", "interop", "experiment", "explore", "report",
            "gradcheck"},
}
# Two exceptions, only inside functions: layer(x), outside of a network, selects a backend when it runs; the command
# prints the version, which is defined in minicnn itself.
WHEN_RUN = {("layers", "backend"), ("cli", "facade")}
PROGRAM = """
import json, sys, time
start = time.process_time()
import minicnn
seconds = time.process_time() - start
heavy = [name for name in ("cupy", "torch", "mpi4py", "numba", "matplotlib") if name in sys.modules]
print(json.dumps([seconds, heavy]))
"""


def package(module: str) -> str:
    """The package of a module: "minicnn.layers.conv" -> "layers"; minicnn itself is "facade"."""
    names = module.split(".")[1:]
    if not names:
        return "facade"
    if names[0] == "kernels":
        return "kernels." + names[1] if len(names) > 1 else "kernels"
    return "leaves" if names[0] in LEAVES else names[0]


def source_files() -> dict[str, Path]:
    """Module name -> file, of the package and of kernels/, which is installed inside it."""
    files = {}
    for folder, name in (("minicnn", "minicnn"), ("kernels", "minicnn.kernels")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            names = [name, *path.relative_to(ROOT / folder).with_suffix("").parts]
            files[".".join(names).removesuffix(".__init__")] = path
    return files


def imports(tree: ast.Module, modules) -> list[tuple[int, str, bool]]:
    """(line, module of minicnn, whether inside a function) of every import that can run."""
    found = []

    def visit(node, deferred):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            found.extend((node.lineno, alias.name, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "minicnn (relative)" if node.level else node.module
            names = [f"{base}.{alias.name}" for alias in node.names]            # `from minicnn import rng`: minicnn.rng
            found.extend((node.lineno, name if name in modules else base, deferred) for name in names)
        inside = deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(tree, False)
    return [item for item in found if item[1].split(".")[0].split(" ")[0] == "minicnn"]


def allowed(source: str, target: str, deferred: bool) -> bool:
    """Whether package `source` may import package `target`."""
    if source == target or (deferred and (source, target) in WHEN_RUN):
        return True
    if source == "facade":                           # the facade re-exports public names; nothing imports it
        return target != "facade"
    if source.startswith("kernels"):
        return target == "leaves"
    return target.split(".")[0] in ALLOWED.get(source, ())


def check_imports(files: dict[str, str]) -> tuple[dict, list[str]]:
    """Edges (package, package) -> number of imports, and violations; files maps module names to their text."""
    edges, violations = defaultdict(int), []
    graph: dict[str, set[str]] = {}
    for module, text in files.items():
        source = package(module)
        graph[module] = set()
        if source.split(".")[0] not in ALLOWED and source != "facade":
            violations.append(f"{module}: a new package, {source!r}; add it to ALLOWED")
        for line, target, deferred in imports(ast.parse(text), files):
            edges[source, package(target)] += source != package(target)
            if target in files and not (deferred and (source, package(target)) in WHEN_RUN):
                graph[module].add(target)
            if "relative" in target:
                violations.append(f"{module}, line {line}: relative import; write the module's full name")
            elif not allowed(source, package(target), deferred):
                may = ", ".join(sorted(ALLOWED.get(source.split(".")[0], ()))) or "nothing of minicnn"
                violations.append(f"{module}, line {line}: {source} imports {target}; it may import {may}")
    if cycle := find_cycle(graph):
        violations.append(f"circular import: {' -> '.join(cycle)}")
    return edges, violations


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """A circular import, including imports inside functions; [] if there is none."""
    done: set[str] = set()

    def search(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module):] + [module]
        if module not in done:
            for target in sorted(graph.get(module, ())):
                if cycle := search(target, [*path, module]):
                    return cycle
            done.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := search(module, []))), [])


def test_imports_follow_the_allowed_order():
    texts = {module: path.read_text(encoding="utf-8") for module, path in source_files().items()}
    edges, violations = check_imports(texts)
    for (source, target), count in sorted(edges.items()):
        if count:
            print(f"{source:20s} -> {target:20s} {count:3d}")
    assert not violations, "\n" + "\n".join(violations)


def test_the_order_has_no_cycles():
    done: list[str] = []
    while len(done) < len(ALLOWED):
        ready = [name for name in ALLOWED if name not in done and ALLOWED[name] - {name} <= set(done)]
        assert ready, f"ALLOWED has a cycle among {sorted(set(ALLOWED) - set(done))}"
        done += ready


def test_wrong_imports_are_found():
    """The check can fail."""
    wrong = {
        "minicnn.shapes": "from minicnn.layers.base import Layer",
        "minicnn.kernels.cpu.conv": "from minicnn.kernels.reference.conv import im2col",
        "minicnn.layers.conv": "from minicnn.backend.select import get_ops",
        "minicnn.layers.pool": "def f():\n    import minicnn.kernels.cpu.pool",
        "minicnn.graph": "from minicnn import Net",
        "minicnn.data.loader": "from ..graph import Net",
        "minicnn.evaluate.evaluate": "from minicnn.train.loop import Trainer",
        "minicnn.surprise": "",
    }
    for module, text in wrong.items():
        assert len(check_imports({module: text})[1]) == 1, (module, check_imports({module: text}))
    right = {
        "minicnn.errors": "import numpy",
        "minicnn.layers.base": "if TYPE_CHECKING:\n    from minicnn.backend.ops import Ops\n"
                               "def f():\n    from minicnn.backend.select import get_ops",
        "minicnn.kernels.cpu.conv": "from minicnn.kernels.cpu.memory import rows\nfrom minicnn import errors",
        "minicnn": "from minicnn.graph import Net",
    }
    assert check_imports(right)[1] == []


def test_circles_between_files_are_found():
    """Also within a package, over three files, and if one of the imports is inside a function."""
    cycle = {"minicnn.train.a": "from minicnn.train import b", "minicnn.train.b": "from minicnn.train.c import f",
              "minicnn.train.c": "def f():\n    import minicnn.train.a", "minicnn.train.d": "import minicnn.train.a"}
    _, violations = check_imports(cycle)
    assert len(violations) == 1 and violations[0].count("->") == 3 and "train.d" not in violations[0]
    cycle["minicnn.train.c"] = "if TYPE_CHECKING:\n    import minicnn.train.a"
    assert check_imports(cycle)[1] == []


def test_import_is_light_and_fast(tmp_path):
    """In a new interpreter, outside of the source tree: under a second (best of three), without heavy modules.

    CPU time, so that other load on the machine does not matter; on an idle machine it equals wall-clock time.
    """
    runs = [json.loads(subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, check=True, capture_output=True,
                                      text=True, timeout=120).stdout) for _ in range(3)]
    assert all(loaded == [] for _, loaded in runs), f"import minicnn loads {runs[0][1]}"
    assert min(seconds for seconds, _ in runs) < 1.0, f"import minicnn takes {[round(s, 2) for s, _ in runs]} s"
