"""The page of results and the roofline, from made-up reports; and what the scripts say where PyTorch is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark import write_report
from hypothesis import given
from hypothesis import strategies as st
from limits import limit_vectors, machine, slug
from ratios import ratios_of
from roofline import draw_roofline, spread
from run_all import benchmarks, render
from tables import results_page, terminal_head, terminal_line

from tests.helpers.fake_reports import report, row

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = [f"{name}.py" for name in [*benchmarks(), "bench_cuda", "bench_ladder", "run_all"]]


def cells(page, first):
    line = next(line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_page_shows_results_goals_and_conditions():
    page = results_page([report()], "roofline.png")
    assert cells(page, "conv2 forward") == ["conv2 forward", "Convolutions", "2", "the best (compile)", "**2.00x**",
                                            "2.00x to 2.00x", "0.95x", "1.00x", "aim"]
    assert cells(page, "pool")[3:] == ["copy rate", "**50 %**", "50 % to 50 %", "", "80 %", "not the aim"]
    section = page[page.index("## Convolutions"):]
    assert cells(section, "conv2 forward") == ["conv2 forward", "2", "1000", "3000", "*2000*", "100 of 200 GFLOP/s",
                                               "50 %", "**2.00** (2.00 to 2.00)"]
    assert cells(section, "pool")[5] == "5 of 10 GB/s"
    assert cells(section, "both")[-1] == "**2.00** (2.00 to 2.00)"
    assert "SGEMM 200 GFLOP/s (NumPy's), copy 10.0 GB/s" in section
    assert "15 rounds" in section and "trial" not in page and "A note." in section and "roofline.png" in page


def test_a_trial_is_called_one():
    assert "which is a trial" in results_page([report(pairs=3)])
    assert "other programs used 40 % of the cores" in results_page([report(others=0.4)])


def test_memory_has_its_own_table():
    rows = [{"name": "training", "threads": 2, "batch": 128, "mib": {"ours": 1000.0, "eager": 2000.0},
             "goals": [("memory", 0.7, 0.5)]}]
    page = results_page([report(rows=rows, totals=[], limits={})])
    assert cells(page, "training")[3:] == ["the least (eager)", "**0.50**", "", "0.70", "0.50", "aim"]
    assert "| training | 2 | 1000 | *2000* | 0.50 |" in page


def test_times_without_work_have_no_rate():
    """As those of Python, which launches a step on a GPU and does not wait for it."""
    rows = [row("Python of it", gflop=None, gbyte=None, limit=None, limit_rates=[])]
    assert cells(results_page([report(rows=rows, totals=[])]), "Python of it")[2:6] == ["1000", "3000", "*2000*", ""]


def test_the_pictures_are_on_the_page():
    page = results_page([report()], "a/roofline.png", "a/timeline.png")
    assert "(a/roofline.png)" in page and "## One step of training" in page and "(a/timeline.png)" in page
    assert "One step" not in results_page([report()], "a/roofline.png")


def test_every_line_of_a_table_has_as_many_cells_as_its_head():
    for block in results_page([report()]).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_terminal_lines_align_with_their_heads():
    m = ratios_of(row(goals=[("best", 0.95, 1.0)]))
    head, line = terminal_head(["eager", "compile"]), terminal_line(m, "sgemm", ["eager", "compile"])
    assert line.startswith("conv ") and "100 of 200 GFLOP/s" in line and "best 0.95x, aim 1.00x: aim" in line
    assert head.index("eager") + len("eager") == line.index("3000") + len("3000")


def test_one_benchmark_replaces_its_section_only(tmp_path):
    folder = tmp_path / "some-machine-3.5"
    write_report(report(), folder / "bench_conv.json")
    write_report(report(benchmark="bench_sgd", title="SGD", rows=[row("update")], totals=[]), folder / "bench_sgd.json")
    page = render(folder, ["bench_conv", "bench_lrn", "bench_sgd"])
    assert page == tmp_path / "some-machine-3.5.md"
    before = page.read_text()
    write_report(report(benchmark="bench_sgd", title="SGD", rows=[row("update", ours=4.0)], totals=[]),
                 folder / "bench_sgd.json")
    after = render(folder, ["bench_conv", "bench_lrn", "bench_sgd"]).read_text()
    assert before != after and before.split("## SGD")[0] == after.split("## SGD")[0]
    assert (folder / "roofline.png").stat().st_size > 10_000


def test_no_picture_without_dots(tmp_path):
    assert draw_roofline([report(rows=[row()])], tmp_path / "none.png") is None
    assert not list(tmp_path.iterdir())


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 0.1)), max_size=20))
def test_spread_keeps_the_order_and_the_gaps(items):
    items.sort()
    places, halves = [place for place, _ in items], [half for _, half in items]
    moved = spread(places, halves, 5.0)
    for i in range(1, len(moved)):
        assert moved[i] - moved[i - 1] >= halves[i] + halves[i - 1] - 1e-9
    assert all(half - 1e-9 <= place <= 5 - half + 1e-9 for place, half in zip(moved, halves, strict=True))
    if all(b - a >= 0.2 for a, b in zip([-1, *places], [*places, 6], strict=True)) and all(
            0.1 <= place <= 4.9 for place in places):
        assert moved == pytest.approx(places)                                   # nothing touched: nothing moved


@pytest.mark.parametrize("name, file", [
    ("Intel(R) Xeon(R) Processor, 2 cores", "intel-xeon-2-cores"),
    ("Intel(R) Core(TM) i7-1065G7 CPU @ 1.30GHz, 8 cores", "intel-core-i7-1065g7-8-cores"),
    ("AMD Ryzen 9 7950X 16-Core Processor, 32 cores", "amd-ryzen-9-7950x-16-core-32-cores"),
])
def test_slug(name, file):
    assert slug(name) == file


def run_without_torch(folder: Path, script: str, *arguments):
    (folder / "torch.py").write_text("raise ImportError('not here')\n")
    env = {"PYTHONPATH": str(folder), "PATH": ""}
    return subprocess.run([sys.executable, FOLDER / script, *arguments], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_torch(script, tmp_path):
    done = run_without_torch(tmp_path, script, "--help")
    assert done.returncode == 0 and "usage:" in done.stdout and len(done.stdout.splitlines()) > 8


@pytest.mark.parametrize("command", [*([script] for script in SCRIPTS), ["run_all.py", "--gpu"]], ids=" ".join)
def test_a_run_without_torch_ends_with_one_line(command, tmp_path):
    done = run_without_torch(tmp_path, *command)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "minicnn[judge]" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("chosen", "capability"), [("32", "avx2"), (None, None)])
def test_shorter_vectors_are_a_machine_of_their_own(monkeypatch, chosen, capability):
    """The page names them, and PyTorch has no longer ones."""
    monkeypatch.setattr(os, "environ", {"MINICNN_VECTOR_BYTES": chosen} if chosen else {})
    limit_vectors()
    assert os.environ.get("ATEN_CPU_CAPABILITY") == capability
    assert ("vectors-of-32" in os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")) == bool(chosen)
    assert machine().endswith(f" cores, vectors of {chosen} bytes" if chosen else " cores")
