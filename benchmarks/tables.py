"""Results as text: a line for the terminal while a benchmark runs, and the page of results in Markdown."""

from __future__ import annotations

from limits import BUSY
from ratios import OURS, Interval, Ratios, limit_of, ratios_of, total, verdict

NAMES = {OURS: "minicnn", "sgemm": "SGEMM", "copy": "copy", "best": "the best", "memory": "the least"}
UNITS = {"sgemm": "GFLOP/s", "copy": "GB/s"}
HOW_TO_READ = """\
The programs of a case are timed in turns, on the same threads and in an order that changes every round: ours, each of
PyTorch's settings, and the machine's own limit, a matrix product (SGEMM) or a copy. *Times as fast* is PyTorch's time
divided by ours within a round: the median over the rounds, with its 90 % interval; above 1, ours is faster. *The best*
is PyTorch's setting with the least median in that case, in italics. *Rate* is our median rate, and after it what the
limit reached in the same rounds (in the best tenth of its turns); *of limit* is the one as a part of the other: above
100 % where an algorithm needs fewer products than are counted (Winograd), multiplies in bf16 (the limit is float32), or
reads what is still in a cache (the copy is of memory). Arrays are float32 where a section does not name bf16. A goal is
reached when the median reaches it; *(close)*: the interval holds the gate."""
TRIAL = 15                                                  # rounds; fewer are a trial


def name_of(key: str) -> str:
    """The name of a setting, limit or goal in a table."""
    return NAMES.get(key, key)


# ---- terminal
def terminal_head(peers) -> str:
    """The heading of `terminal_line`."""
    columns = "".join(f"{name_of(peer):>15s}" for peer in peers)
    return f"{'milliseconds':39s}{'minicnn':>9s}{columns}{'rate':>24s}{'of limit':>10s}   times as fast as the best"


def terminal_line(m: Ratios, limit: str | None, peers) -> str:
    """One row; limit: "sgemm" or "copy", whose unit the rate has."""
    ms = "".join(f"{_digits(m.ms.get(peer)):>15s}" for peer in peers)
    best = f"{_times(m.versus[m.best])}, {name_of(m.best)}" if m.best else ""
    goals = "; ".join(f"{_goal(goal)}: {verdict(m, goal)}" for goal in m.goals if m.value(goal[0]))
    return (f"{m.name:39s}{_digits(m.ms.get(OURS)):>9s}{ms}{_rate(m, limit):>24s}{_percent(m.share):>10s}   "
            f"{best:40s} {goals}").rstrip()


# ---- Markdown
def results_page(reports: list[dict], picture: str | None = None, timeline: str | None = None) -> str:
    """The page: goals and whether they are reached, then a section for each benchmark."""
    parts = [f"# Benchmarks: {reports[0]['machine']}",
             "Written by the benchmarks (`make bench`; on a GPU `make gpu-check`), never by hand.", HOW_TO_READ]
    goals = [line for report in reports for line in _goal_lines(report)]
    if goals:
        head = ("what", "section", "threads", "against", "measured", "90 % interval", "gate", "aim", "reached")
        parts += ["## Goals", _table(head, goals, "llrlrrrrl")]
    if picture:
        parts += ["## Rates", f"![Arithmetic rate over arithmetic intensity, ours and PyTorch's]({picture})"]
    if timeline:
        parts += ["## One step of training", f"![A step of AlexNet, layer by layer, over time]({timeline})"]
    return "\n\n".join(parts + [_section(report) for report in reports]) + "\n"


def all_ratios(report: dict) -> list[tuple[dict, Ratios]]:
    """(row or total, its ratios), those of more threads first."""
    pairs = [(row, ratios_of(row)) for row in report["rows"]]
    pairs += [(what, total(what, report["rows"])) for what in report["totals"]]
    return sorted(((row, m) for row, m in pairs if m), key=lambda pair: -pair[1].threads)


def _goal_lines(report: dict) -> list[tuple]:
    lines = []
    for row, m in all_ratios(report):
        for goal in m.goals:
            against, gate, aim = goal
            value = m.value(against)
            if value is None:
                continue
            of = {"best": f"the best ({name_of(m.best)})" if m.best in m.ms else m.best,
                  "share": f"{name_of(row.get('limit', 'sgemm'))} rate",
                  "memory": f"the least ({name_of(m.best)})"}.get(against, name_of(against))
            interval = "" if against == "memory" else f"{_show(against, value[1])} to {_show(against, value[2])}"
            lines.append((m.name, report["title"], m.threads, of, f"**{_show(against, value[0])}**", interval,
                          _show(against, gate), _show(against, aim), verdict(m, goal)))
    return lines


def _section(report: dict) -> str:
    parts = [f"## {report['title']}", _conditions(report)]
    if report["note"]:
        parts.append(report["note"])
    pairs = all_ratios(report)
    peers = list(dict.fromkeys(key for _, m in pairs for key in m.ms if key != OURS))
    names = ("threads", name_of(OURS), *map(name_of, peers))
    memory = [_cells(m, peers, f"{m.versus[m.best][0]:.2f}") for row, m in pairs if "mib" in row]
    if memory:
        parts.append(_table(("MiB", *names, "ours / the least"), memory, "lr" + "r" * len(names)))
    timed = [_cells(m, peers, _rate(m, row.get("limit", "sgemm")), _percent(m.share),
                    _times(m.versus[m.best], "**") if m.best else "") for row, m in pairs if "mib" not in row]
    if timed:
        head = ("milliseconds", *names, "rate", "of limit", "times as fast as the best")
        parts.append(_table(head, timed, "lr" + "r" * (len(head) - 2)))
    return "\n\n".join(parts)


def _conditions(report: dict) -> str:
    """The conditions of a section's results."""
    said = [f"`{report['command']}`"]
    if any("seconds" in row for row in report["rows"]):
        said.append(f"{report['pairs']} rounds" if report["pairs"] >= TRIAL else
                    f"**{report['pairs']} rounds, which is a trial: a result takes {TRIAL}**")
    if report["others"] > BUSY:
        said.append(f"**other programs used {100 * report['others']:.0f} % of the cores, so a trial**")
    for threads, rates in sorted(report["limits"].items(), key=lambda item: -int(item[0])):
        product, copy = (limit_of(report, threads, limit) for limit in ("sgemm", "copy"))
        said.append(f"{threads} {'thread' if threads == '1' else 'threads'}: SGEMM {product:.0f} GFLOP/s "
                    f"({rates['sgemm_of']}'s), copy {copy:.1f} GB/s")
    said.append(", ".join(f"{key} {value}" for key, value in report["versions"].items()))
    return "; ".join(said) + "."


def _cells(m: Ratios, peers: list[str], *last: str) -> tuple:
    """A line of a table: name, threads, ours, each peer with the best in italics, and the last cells."""
    theirs = (f"*{_digits(m.ms[peer])}*" if peer == m.best else _digits(m.ms.get(peer)) for peer in peers)
    return m.name, m.threads, _digits(m.ms.get(OURS)), *theirs, *last


def _table(head: tuple, lines: list[tuple], align: str) -> str:
    """A Markdown table; align has a letter for each column, l or r."""
    rule = [{"l": "---", "r": "---:"}[letter] for letter in align]
    return "\n".join("| " + " | ".join(str(cell) for cell in cells) + " |" for cells in (head, rule, *lines))


# ---- values
def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: Interval | None) -> str:
    return f"{100 * share[0]:.0f} %" if share else ""


def _rate(m: Ratios, limit: str | None) -> str:
    return f"{_digits(m.rate)} of {_digits(m.limit_rate)} {UNITS[limit]}" if m.rate else ""


def _times(interval: Interval, mark: str = "") -> str:
    median, low, high = interval
    return f"{mark}{median:.2f}{mark} ({low:.2f} to {high:.2f})"


def _show(against: str, value: float | None) -> str:
    """The value of a goal; empty for None."""
    if value is None:
        return ""
    return f"{100 * value:.0f} %" if against == "share" else f"{value:.2f}" + ("" if against == "memory" else "x")


def _goal(goal: tuple) -> str:
    """A goal in words: "eager 2.00x, aim 2.50x"."""
    against, gate, aim = goal
    parts = [name_of(against) + (f" {_show(against, gate)}" if gate is not None else "")]
    return ", ".join(parts + ([f"aim {_show(against, aim)}"] if aim is not None else []))
