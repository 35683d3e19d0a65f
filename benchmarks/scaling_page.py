"""The page of bench_scaling.py: ranks compared with one process, and a model's prediction for many GPUs."""

from __future__ import annotations

GATE = 0.9                      # of the fastest single process, for two ranks with columns and with data
GATED = ("columns", "data")
HEAD = """\
Written by `python benchmarks/bench_scaling.py --results`, never by hand.

Every configuration is a process of its own (ranks: threads of it, or processes under mpiexec) that takes a training
step of the paper's AlexNet on request; the others are idle meanwhile. *Of the fastest alone* is the fastest
single process's time divided by this one's within a round: the median over the rounds, with its 90 % interval. *Model*
is the time of the same step by the cost model, whose parameters are below the table."""


def scaling_page(reports: list[dict], pictures: list[str]) -> str:
    """Markdown of reports as bench_scaling.py stores them, each with its picture."""
    parts = [f"# AlexNet on several ranks: {reports[0]['machine']}", HEAD]
    for report, picture in zip(reports, pictures, strict=True):
        parts += [f"## Ranks are {'processes (mpiexec)' if report['mpi'] else 'threads of one process'}",
                  _conditions(report), *_verdicts(report), _measured(report), _model(report),
                  f"![Speed-up over one, and a prediction for many GPUs]({picture})"]
    return "\n\n".join([*parts, *_prediction(reports[0])]) + "\n"


def _conditions(report: dict) -> str:
    busy = f"; **other programs used {100 * report['others']:.0f} % of the cores, so a trial**" \
        if report["others"] > report["busy"] else ""
    return (f"Batch {report['batch']} of all ranks together, {report['pairs']} rounds{busy}; "
            f"Python {report['python']}, NumPy {report['numpy']}.")


def _verdicts(report: dict) -> list[str]:
    """Whether two ranks reach the gate."""
    lines = []
    for row in report["measured"]:
        if row["ranks"] == 2 and row["scheme"] in GATED and not row["crowded"]:
            state = "holds" if row["ratio"] >= GATE else "close" if row["ratio_high"] >= GATE else "missed"
            lines.append(f"- {row['name']}: **{row['ratio']:.3f}** of the fastest single process; gate {GATE}: {state}")
    return ["\n".join(lines)] if lines else []


def _measured(report: dict) -> str:
    lines = ["| | ms | images/s | of the fastest alone | model, ms |", "|---|---:|---:|---:|---:|"]
    for row in report["measured"]:
        model = f"{row['model_ms']:.0f}" if row["model_ms"] is not None else ""
        fastest = " (the fastest)" if row["fastest"] else ""
        lines.append(f"| {row['name']}{fastest} | {1e3 * row['seconds']:.0f} | {row['images_per_second']:.1f} | "
                     f"{row['ratio']:.3f} ({row['ratio_low']:.3f} to {row['ratio_high']:.3f}) | {model} |")
    return "\n".join(lines)


def _model(report: dict) -> str:
    machine = report["fitted"]
    return (f"The model's parameters here: {1e3 * machine['seconds_per_image']:.2f} ms an image and thread, messages "
            f"{1e6 * machine['latency']:.0f} us + bytes / {machine['bandwidth'] / 1e9:.2f} GB/s, overlap "
            f"{machine['overlap']:.2f}, SGD {1e3 * machine['sgd']:.0f} ms.")


def _prediction(report: dict) -> list[str]:
    table, assumed = report["predicted_efficiency"], report["assumed"]
    counts = list(next(iter(table.values())))
    lines = ["| GPUs | " + " | ".join(counts) + " |", "|---|" + "---:|" * len(counts)]
    for scheme, values in table.items():
        cells = (f"{value:.3f}" if value == value else "" for value in values.values())        # NaN: cannot be split so
        lines.append(f"| {scheme} | " + " | ".join(cells) + " |")
    return ["## A prediction, not a measurement",
            f"Share of n times one GPU's images per second, with {report['gpu_batch']} images on each GPU (columns: on "
            f"all together). Assumed: {1 / assumed['seconds_per_image']:,.0f} images/s on one GPU, messages "
            f"{1e6 * assumed['latency']:.0f} us + bytes / {assumed['bandwidth'] / 1e9:.0f} GB/s between any two, "
            f"overlap {assumed['overlap']:.2f}, SGD {1e3 * assumed['sgd']:.2f} ms.", "\n".join(lines)]
