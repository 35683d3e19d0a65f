"""The tool that plants mistakes: what it changes, what it leaves alone, and that a run goes on where it was stopped."""

from __future__ import annotations

import json

import pytest

from tests.mutate import run
from tests.mutate.rooms import ROOMS, ROOT, sources, stages
from tests.mutate.sites import mutants

PYTHON = '''
"""A text: 1 + 2."""
LIMIT = 0.5


@cache(maxsize=7)
def f(x: Array[3], n: int = 2) -> Tuple[4]:
    """n * 8."""
    if x[0] < n and not (x):
        raise ValueError(f"{n + 1} is more than " + str(9))
    say("waited %d s" % (n - 1))
    x -= -n
    store(x)
    return x is not None
'''
CUDA = '''
#include "common.cuh"
template <int V> __device__ void add(const T* x, T* y, unsigned n) {  // n * 2
  for (unsigned i = 0; i < n; i++) y[i + 3] += x[i] * T(2);
  __syncthreads();
  asm volatile("add 1;" : : "r"(5 + 5));
}
'''


def changes(text: str, suffix: str) -> set[tuple[str, str, str]]:
    return {(mutant.kind, mutant.old, mutant.new) for mutant in mutants(text, suffix)}


def test_mutants_of_python():
    assert changes(PYTHON, ".py") == {
        ("constant", "0.5", "1.0"), ("constant", "2", "3"), ("index", "0", "1"), ("comparison", "<", "<="),
        ("comparison", "and", "or"), ("comparison", "not ", ""), ("arithmetic", "-=", "+="), ("arithmetic", "-", ""),
        ("deleted call", "store(x)", "pass"), ("comparison", "is not", "is")}


def test_mutants_of_cuda():
    assert changes(CUDA, ".cu") == {
        ("constant", "0", "1"), ("comparison", "<", "<="), ("arithmetic", "+", "-"), ("constant", "3", "4"),
        ("arithmetic", "+=", "-="), ("arithmetic", "*", "/"), ("constant", "2", "3"),
        ("deleted call", "__syncthreads();", ";")}


def test_each_changes_the_text_in_one_place():
    for mutant in mutants(PYTHON, ".py"):
        changed = mutant.apply(PYTHON)
        compile(changed, "mutant", "exec")
        assert changed != PYTHON and PYTHON.splitlines()[mutant.line - 1] not in changed.splitlines()


def test_every_room_has_mutants_and_tests_that_exist():
    for room, (_, folders) in ROOMS.items():
        files = sources(room)
        assert files and all((ROOT / path).exists() for path in folders)
        assert {test for path in files for stage in stages(room, path) for test in stage} >= {*folders, "tests"}
    assert stages("kernels/cpu", "kernels/cpu/winograd_weights.py")[0] == ["tests/kernels/test_winograd.py"]
    assert stages("train", "minicnn/train/loop.py")[0] == ["tests/train/test_loop.py"]
    assert stages("kernels/cpu", "kernels/cpu/combine.py")[1] == ROOMS["kernels/cpu"][1]    # with a mirror, or without
    assert stages("train", "minicnn/train/step.py")[2] == ["tests"]
    assert all(len(stages(room, path)) == len(run.UNTIL) for room in ROOMS for path in sources(room))


def test_a_sample_is_of_every_room_and_the_same_for_a_seed():
    found = {room: run.every(room) for room in ROOMS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "every", lambda room: found[room].copy())
        chosen = run.sample(3, 20)
        assert chosen == run.sample(3, 20) != run.sample(4, 20) and len(set(chosen)) == 20
    assert {planted.room for planted in chosen} == set(ROOMS)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one file, whose tests notice all mutants but one."""
    for folder in ("minicnn", "tests", "kernels", "examples", "benchmarks", "docs", ".ci"):
        (tmp_path / folder).mkdir()
    (tmp_path / "minicnn/twice.py").write_text("def twice(n):\n    return n * 2 if n > 0 else 0\n")
    (tmp_path / "minicnn/__init__.py").write_text("")
    (tmp_path / "tests/test_twice.py").write_text(
        "from minicnn.twice import twice\n\n\ndef test_it():\n    assert twice(1) == 2 and twice(-5) == 0\n")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr("tests.mutate.rooms.ROOT", tmp_path)
    monkeypatch.setattr(run, "WORK", tmp_path / ".mutate")
    monkeypatch.setattr(run, "COPY", tmp_path / ".mutate/copy")
    monkeypatch.setattr(run, "VERDICTS", tmp_path / ".mutate/verdicts.jsonl")
    monkeypatch.setattr(run, "EQUIVALENT", tmp_path / "equivalent.tsv")
    for module in (run, "tests.mutate.rooms"):
        rooms = {"all": (["minicnn/*.py"], ["tests"])}
        monkeypatch.setattr(*((module, "ROOMS") if module is run else (f"{module}.ROOMS",)), rooms)
    return tmp_path


def in_process(tests, numba) -> tuple[bool, str]:
    """run.passes, without starting pytest."""
    names = {}
    exec((run.COPY / "minicnn/twice.py").read_text(), names)
    passed = names["twice"](1) == 2 and names["twice"](-5) == 0
    return passed, "" if passed else "tests/test_twice.py::test_it"


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_and_its_list(project, monkeypatch, capsys, real):
    if not real:
        monkeypatch.setattr(run, "passes", in_process)
    source = (project / "minicnn/twice.py").read_text()
    monkeypatch.setattr("sys.argv", ["run", "--count", "2", "--until", "mirror"])
    assert run.main() == 0
    first = [json.loads(line) for line in (project / ".mutate/verdicts.jsonl").read_text().splitlines()]
    assert len(first) == 2 and (project / "minicnn/twice.py").read_text() == source
    monkeypatch.setattr("sys.argv", ["run", "--until", "mirror"])
    assert run.main() == 0                                                      # goes on with the others
    records = [json.loads(line) for line in (project / ".mutate/verdicts.jsonl").read_text().splitlines()]
    assert records[:2] == first
    place = "minicnn/twice.py:2:"
    assert {record["name"].partition(" in ")[0]: record["verdict"] for record in records} == {
        f"{place}14 arithmetic: * -> /": "caught", f"{place}16 constant: 2 -> 3": "caught",
        f"{place}23 comparison: > -> >=": "survived", f"{place}25 constant: 0 -> 1": "caught",
        f"{place}32 constant: 0 -> 1": "caught"}
    [survivor] = [record["name"] for record in records if record["verdict"] == "survived"]
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["run", "--list"])
    run.main()
    said = capsys.readouterr().out
    assert "caught (80 %)" in said and f"survived: {survivor}" in said and "by `tests/test_twice.py::test_it`" in said
    monkeypatch.setattr("sys.argv", ["run", "--until", "all"])                  # more tests for the one that survived
    run.main()
    assert len((project / ".mutate/verdicts.jsonl").read_text().splitlines()) == 6
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["run", "--list"])
    (project / "equivalent.tsv").write_text(f"{survivor}\ttwice 0 is 0\n")
    run.main()
    said = capsys.readouterr().out
    assert "caught (100 %)" in said and "equivalent: twice 0 is 0" in said and "survived" not in said
