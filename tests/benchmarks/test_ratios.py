"""Ratios and goals from seconds whose results are known."""

import pytest
from ratios import ceiling, limit_of, ratios_of, total, verdict

from tests.helpers.fake_reports import row


def test_times_as_fast_is_theirs_over_ours():
    m = ratios_of(row())
    assert m.ms == {"ours": 1000, "eager": 3000, "compile": 2000}
    assert m.best == "compile"
    assert m.value("best") == (2, 2, 2)
    assert m.value("eager") == (3, 3, 3)
    assert m.value("channels_last") is None
    assert (m.rate, m.limit_rate, m.share) == (100, 200, (0.5, 0.5, 0.5))


def test_ratios_are_taken_within_rounds():
    """Where both slow down together the ratio does not move, although the medians of the times do not show it."""
    pace = [1.0, 2.0, 5.0] * 5
    m = ratios_of(row(seconds={"ours": pace, "eager": [1.5 * value for value in pace]}))
    assert m.value("eager") == (1.5, 1.5, 1.5)


def test_the_copy_limit_counts_bytes():
    m = ratios_of(row(limit="copy", limit_rates=[10.0] * 15))
    assert (m.rate, m.share[0]) == (5, 0.5)
    assert ratios_of(row(gflop=None)).share is None


def test_a_share_is_of_what_the_limit_reached_in_its_best_turns():
    assert ceiling([100.0] * 10 + [200.0] * 5) == 200
    assert ceiling([100.0] * 19 + [900.0]) == 100
    assert ceiling([7.0]) == 7
    report = {"limits": {"2": {"sgemm": [150.0], "copy": [20.0]}}, "rows": [row(), row(threads=1, limit_rates=[999.0])]}
    assert limit_of(report, "2", "sgemm") == 200
    assert limit_of(report, "2", "copy") == 20


def test_memory_is_ours_over_the_least():
    m = ratios_of({"name": "m", "threads": 2, "batch": 1, "mib": {"ours": 50, "eager": 100, "compile": 80},
                  "goals": [("memory", 0.7, 0.5)]})
    assert m.best == "compile"
    assert m.value("memory")[0] == 50 / 80
    assert verdict(m, m.goals[0]) == "gate"


@pytest.mark.parametrize("ours, said", [(0.9, "aim"), (1.0, "aim"), (1.1, "gate"), (1.9, "missed")])
def test_verdict(ours, said):
    assert verdict(ratios_of(row(ours=ours)), ("best", 1.4, 2.0)) == said
    assert verdict(ratios_of(row(ours=ours)), ("best", 1.4, None)) == said.replace("aim", "gate")


def test_an_aim_without_a_gate():
    assert verdict(ratios_of(row()), ("share", None, 0.5)) == "aim"
    assert verdict(ratios_of(row()), ("share", None, 0.6)) == "not the aim"


def test_a_verdict_says_when_the_interval_holds_the_gate():
    seconds = {"ours": [1.0] * 15, "eager": [1.3] * 7 + [1.5] * 8}
    assert verdict(ratios_of(row(seconds=seconds)), ("best", 1.4, 2.0)) == "gate (close)"


def test_a_sum_runs_its_parts_one_after_the_other():
    rows = [row("a"), row("b", ours=2.0, peers={"eager": 9.0, "compile": 1.0}, limit_rates=[100.0] * 15)]
    what = {"name": "both", "kind": "sum", "of": ["a", "b"], "threads": 2, "goals": [("share", 0.75, 0.9)]}
    m = total(what, rows)
    assert (m.name, m.ms, m.best) == ("both", {"ours": 3000, "eager": 12000, "compile": 3000}, "compile")
    assert m.rate == pytest.approx(200 / 3)
    assert m.share[0] == pytest.approx((100 / 200 + 100 / 100) / 3)             # seconds at the limit / seconds of ours
    assert m.goals == [("share", 0.75, 0.9)]
    assert total(what | {"threads": 1}, rows) is None
    assert total(what, rows[:1]) is None


def test_a_geometric_mean_takes_each_at_its_best():
    rows = [row("a"), row("b", peers={"eager": 0.5, "compile": 1.0})]
    m = total({"name": "mean", "kind": "geomean", "of": ["a", "b"], "threads": 2, "goals": [("best", 1, None)]}, rows)
    assert m.value("best") == pytest.approx((1, 1, 1))                          # 2 and 0.5
    assert verdict(m, m.goals[0]) == "gate"
