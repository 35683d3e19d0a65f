"""Run the benchmarks, each in a process of its own, and write the page of results: what `make bench` does.

    python benchmarks/run_all.py                        all of them
    python benchmarks/run_all.py --only bench_conv      one; the sections of the others stay as they are
    python benchmarks/run_all.py --render               none: the page and the picture again, from the stored seconds
    python benchmarks/run_all.py --gpu                  those of the first GPU, which must be there for --render, too

The seconds of every round lie in results/<machine>/NAME.json; results/<machine>.md and results/<machine>/roofline.png
are made from them. results/<machine>/timeline.png is one step (timeline.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from limits import machine, slug
from roofline import draw_roofline
from side_by_side import import_torch
from tables import results_page

HERE = Path(__file__).parent
ORDER = ("bench_alexnet", "bench_inference", "bench_families", "bench_memory", "bench_conv", "bench_depthwise",
         "bench_linear", "bench_lrn", "bench_batchnorm", "bench_pool", "bench_sgd", "bench_bf16")
STEP = "timeline.png"
ON_GPU = tuple(f"bench_cuda-{precision}" for precision in ("tf32", "bf16", "fp16", "fp32"))     # NAME-PRECISION
ON_GPU += ("bench_ladder",)


def main() -> None:
    title, _, rest = __doc__.partition("\n")
    parser = argparse.ArgumentParser(description=title, epilog=rest.strip("\n"),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*benchmarks(), *ON_GPU]
    parser.add_argument("--only", nargs="+", choices=known, metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--gpu", action="store_true", help=f"{', '.join(ON_GPU)}")
    parser.add_argument("--render", action="store_true", help="run nothing")
    parser.add_argument("--pairs", type=int, metavar="N", help="rounds of each case, passed on")
    parser.add_argument("--threads", type=int, nargs="+", metavar="N", help="numbers of threads, passed on")
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="DIR",
                        help="where results go (default: benchmarks/results)")
    options = parser.parse_args()

    known = list(ON_GPU) if options.gpu else benchmarks()
    if unknown := sorted(set(options.only or []) - set(known)):
        parser.error(f"{unknown[0]} runs {'without' if options.gpu else 'with'} --gpu")
    folder = options.results / slug(gpu_name() if options.gpu else machine())
    failed = []
    if not options.render:
        import_torch()
        folder.mkdir(parents=True, exist_ok=True)
        extra = [] if options.pairs is None else ["--pairs", str(options.pairs)]
        extra += [] if options.threads is None else ["--threads", *map(str, options.threads)]
        start = time.monotonic()
        for name in options.only or known:
            failed += [] if run(name, folder, extra) else [name]
        if not options.only:
            failed += [] if draw_step(folder, "cuda" if options.gpu else "cpu") else ["timeline"]
        print(f"all took  {_minutes(time.monotonic() - start)}")
    page = render(folder, known)
    print(f"results   {page}")
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed; their sections of the page, if any, are from an earlier run")


def gpu_name() -> str:
    """The name of the first GPU; exits with one line where there is none."""
    from devices import Gpu

    return Gpu(import_torch(), "fp32").name()


def benchmarks() -> list[str]:
    """Names of the scripts that keep rows (ratios.py), in the order in which the page has them."""
    return [name for name in ORDER if (HERE / f"{name}.py").exists()]


def run(name: str, folder: Path, extra: list[str]) -> bool:
    """Run one; its JSON replaces the previous one only if it completes."""
    kept, fresh, start = folder / f"{name}.json", folder / f".{name}.json.part", time.monotonic()
    script, _, precision = name.partition("-")
    command = [sys.executable, str(HERE / f"{script}.py"), "--json", str(fresh), *extra,
               *(["--precision", precision] if precision else [])]
    done = subprocess.run(command).returncode == 0 and fresh.exists()
    if done:
        fresh.replace(kept)
    elif fresh.exists():
        print(f"its rows so far are in {fresh}")
    print(f"{name} {'took' if done else 'FAILED after'} {_minutes(time.monotonic() - start)}\n", flush=True)
    return done


def draw_step(folder: Path, device: str) -> bool:
    """Draw the timeline of a step of 128 images."""
    command = [sys.executable, str(HERE / "timeline.py"), "--device", device, "--batch", "128"]
    return subprocess.run([*command, "--out", str(folder / STEP)]).returncode == 0


def render(folder: Path, names: list[str]) -> Path:
    """The page and the picture of rates, from all JSON files of a machine."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for name in names
               if (path := folder / f"{name}.json").exists()]
    if not reports:
        sys.exit(f"error: there are no results in {folder} yet; run without --render")
    picture = folder / "roofline.png"
    page = folder.with_suffix(".md") if not folder.suffix else folder.parent / f"{folder.name}.md"
    drawn = draw_roofline(reports, picture)
    pictures = [f"{folder.name}/{name}" if there else None
                for name, there in ((picture.name, drawn), (STEP, (folder / STEP).exists()))]
    page.write_text(results_page(reports, *pictures), encoding="utf-8")
    return page


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


if __name__ == "__main__":
    main()
