"""Rows and reports of benchmarks, made up for tests."""


def row(name="conv", ours=1.0, peers=None, **changes):
    """Fifteen rounds of equal times."""
    seconds = {"ours": ours, **({"eager": 3.0, "compile": 2.0} if peers is None else peers)}
    return {"name": name, "threads": 2, "batch": 32, "gflop": 100.0, "gbyte": 5.0, "limit": "sgemm",
            "limit_rates": [200.0] * 15, "seconds": {key: [value] * 15 for key, value in seconds.items()},
            "dot": None, "goals": []} | changes


def report(**changes):
    """Two rows and a total."""
    rows = [row("conv2 forward", dot=("conv2", "forward"), goals=[("best", 0.95, 1.0)]),
            row("pool", limit="copy", limit_rates=[10.0] * 15, gflop=0.5, dot=("pool", "forward"),
                goals=[("share", None, 0.8)])]
    return {"benchmark": "bench_conv", "title": "Convolutions", "note": "A note.", "command": "python bench_conv.py",
            "machine": "A machine, 2 cores", "versions": {"NumPy": "2.0"}, "others": 0.0, "pairs": 15,
            "limits": {"2": {"sgemm_of": "NumPy", "sgemm": [200.0], "copy": [10.0]}}, "rows": rows,
            "totals": [{"name": "both", "kind": "geomean", "of": ["conv2 forward", "pool"], "threads": 2,
                        "goals": [("best", 1.0, 1.15)]}]} | changes
