"""The learning rate over epochs, and what a checkpoint keeps of a schedule."""

import json
import math

import pytest

from minicnn.errors import ConfigError
from minicnn.train.schedule import (
    SCHEDULES,
    Constant,
    Cosine,
    ExponentialDecay,
    OneCycle,
    Plateau,
    Polynomial,
    StepDecay,
    schedule_for,
    schedule_from_dict,
    schedule_to_dict,
)


def test_constant_and_step():
    assert Constant().factor(7.5) == 1.0
    step = StepDecay(epochs=(2, 4), by=0.1)
    assert [step.factor(x) for x in (0, 1.99, 2.0, 3.5)] == [1.0, 1.0, 0.1, 0.1]
    assert math.isclose(step.factor(4), 0.01)


def test_cosine_rises_and_falls():
    cosine = Cosine(epochs=10, floor=0.1, warmup=2)
    assert 0 < cosine.factor(0) < cosine.factor(1) == 0.5 < cosine.factor(2) == 1.0
    assert [round(cosine.factor(x), 9) for x in (6, 10, 12)] == [0.55, 0.1, 0.1]


def test_googlenets_4_percent_every_8_epochs():
    decay = ExponentialDecay(by=0.96, every=8)
    assert [decay.factor(x) for x in (0, 7.99, 8.0, 15.99)] == [1.0, 1.0, 0.96, 0.96]
    assert math.isclose(decay.factor(249.9), 0.96**31)
    assert [ExponentialDecay(by=0.5, every=0.2).factor(step / 5) for step in range(9)] == [0.5**n for n in range(9)]


def test_polynomial_falls_to_0():
    assert [Polynomial(epochs=60, power=0.5).factor(x) for x in (0, 45, 60, 61)] == [1.0, 0.5, 0.0, 0.0]
    assert [Polynomial(epochs=8).factor(x) for x in (0, 2, 6, 8)] == [1.0, 0.75, 0.25, 0.0]


@pytest.mark.parametrize("anneal, quarter", [("linear", 0.25), ("cos", 0.1464466094067262)])
def test_one_cycle_rises_and_falls(anneal, quarter):
    """From 1/25 to 1 within 4 epochs of 10, then to 1/250,000; after a quarter of a phase, the cosine has done
    (1 - cos 45°) / 2 of it."""
    cycle = OneCycle(epochs=10, pct_start=0.4, anneal=anneal)
    assert [cycle.factor(x) for x in (0, 1, 2, 4)] == pytest.approx([0.04, 0.04 + 0.96 * quarter, 0.52, 1.0], abs=1e-15)
    assert [cycle.factor(x) for x in (7, 10, 11)] == pytest.approx([(1 + 4e-6) / 2, 4e-6, 4e-6], rel=1e-9)


def test_one_cycle_in_three_phases():
    cycle = OneCycle(epochs=10, pct_start=0.4, anneal="linear", three_phase=True, div_factor=5, final_div_factor=10)
    assert [cycle.factor(x) for x in (0, 4, 6, 8, 9, 10)] == pytest.approx([0.2, 1.0, 0.6, 0.2, 0.11, 0.02], abs=1e-15)


# What follows a warm-up of 4 epochs from a tenth: (schedule, its factor at the end of the warm-up, and 2 epochs later).
WARMUP = {"warmup": 4, "warmup_start": 0.1}
AFTER_WARMUP = {
    "constant": (Constant(**WARMUP), 1.0, 1.0),
    "step": (StepDecay(epochs=(6,), **WARMUP), 1.0, 0.1),                                 # counted from the beginning
    "exponential": (ExponentialDecay(by=0.5, every=3, **WARMUP), 0.5, 0.25),              # likewise
    "plateau": (Plateau(**WARMUP), 1.0, 1.0),
    "cosine": (Cosine(epochs=8, **WARMUP), 1.0, 0.5),                                     # over epochs 4 to 8
    "polynomial": (Polynomial(epochs=8, **WARMUP), 1.0, 0.5),
    "onecycle": (OneCycle(epochs=8, pct_start=0.5, div_factor=2, **WARMUP), 0.5, 1.0),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_warm_up_before_each(kind):
    """Linear from a tenth of what it leads to, continuous at its end, and what follows counts as it says."""
    schedule, end, later = AFTER_WARMUP[kind]
    assert type(schedule) is SCHEDULES[kind]
    assert [schedule.factor(x) for x in (0, 1, 2, 4, 6)] == pytest.approx(
        [0.1 * end, 0.325 * end, 0.55 * end, end, later], abs=1e-15)
    assert schedule.factor(4 - 1e-9) == pytest.approx(schedule.factor(4), abs=1e-8)


def test_a_constant_warm_up():
    schedule = Constant(warmup=1, warmup_start=0.1, warmup_shape="constant")
    assert [schedule.factor(x) for x in (0, 0.99, 1)] == [0.1, 0.1, 1.0]


def test_a_warm_up_from_0_begins_at_a_hundredth():
    assert [Constant(warmup=2).factor(x) for x in (0, 0.01, 0.5, 2)] == [0.01, 0.01, 0.25, 1.0]
    assert Constant(warmup=2, warmup_start=0.001).factor(0) == 0.001


def plateau_rates(plateau, errors, done=0):
    rates = []
    for epoch, error in enumerate(errors, done):
        rates.append(round(plateau.factor(epoch), 6))
        plateau.epoch_done(error, epoch + 1)
    return rates


def test_plateau_waits_for_the_error_to_fall():
    """A falling error never lowers the learning rate; a rising one does, after the first epoch."""
    falling = [0.9, 0.8, 0.7, 0.6, 0.5]
    assert plateau_rates(Plateau(patience=1), falling) == 5 * [1]
    assert plateau_rates(Plateau(patience=1), falling[::-1]) == [1, 1, 0.1, 0.01, 0.001]


def test_plateau_counts_again_after_an_improvement():
    assert plateau_rates(Plateau(patience=2), [0.9, 0.9, 0.8, 0.8, 0.7, 0.7, 0.7, 0.7]) == 7 * [1] + [0.1]


def test_plateau_does_not_look_at_the_epochs_of_the_warm_up():
    """Neither at their number nor at their best error, of 0.1."""
    plateau = Plateau(patience=1, warmup=3, warmup_start=1.0)
    assert plateau_rates(plateau, [0.1, 0.2, 0.3, 0.9, 0.8, 0.8, 0.7]) == 6 * [1] + [0.1]


def test_plateau_divides_by_ten_when_the_error_stops_improving_three_times_at_most():
    errors = [0.9, 0.8, 0.8, 0.8] + 9 * [0.7]
    assert plateau_rates(Plateau(patience=2), errors) == 4 * [1] + 3 * [0.1] + 2 * [0.01] + 4 * [0.001]


def test_plateau_goes_on_from_its_state():
    errors = [0.9, 0.8, 0.8, 0.9, 0.9, 0.7, 0.7, 0.7]
    for cut in range(len(errors)):
        first = Plateau(patience=2)
        rates = plateau_rates(first, errors[:cut])
        second = Plateau(patience=2)
        second.state = first.state
        assert rates + plateau_rates(second, errors[cut:], cut) == plateau_rates(Plateau(patience=2), errors)


def test_plateau_goes_on_from_its_state_within_the_warm_up():
    errors = [0.1, 0.2, 0.9, 0.9, 0.8, 0.8, 0.8]
    whole = plateau_rates(Plateau(patience=1, warmup=2), errors)
    for cut in range(len(errors)):
        first, second = Plateau(patience=1, warmup=2), Plateau(patience=1, warmup=2)
        rates = plateau_rates(first, errors[:cut])
        second.state = json.loads(json.dumps(first.state))
        assert rates + plateau_rates(second, errors[cut:], cut) == whole == [0.01, 0.5, 1, 1, 0.1, 0.1, 0.01]


@pytest.mark.parametrize("schedule", [Constant(), StepDecay(epochs=(3, 5)), Plateau(patience=7),
                                      Cosine(epochs=4, warmup=1), *(case[0] for case in AFTER_WARMUP.values()),
                                      OneCycle(anneal="linear", three_phase=True),
                                      Constant(warmup=1, warmup_start=0.1, warmup_shape="constant")])
def test_schedules_are_plain_data(schedule):
    assert schedule_from_dict(schedule_to_dict(schedule)) == schedule
    assert schedule_from_dict(json.loads(json.dumps(schedule_to_dict(schedule)))) == schedule


@pytest.mark.parametrize("old, now", [
    ({"kind": "constant"}, Constant()),
    ({"kind": "step", "epochs": [3, 5], "by": 0.5}, StepDecay(epochs=(3, 5), by=0.5)),
    ({"kind": "plateau", "by": 0.1, "patience": 3, "times": 3}, Plateau()),
    ({"kind": "cosine", "epochs": 4, "floor": 0.1, "warmup": 1}, Cosine(epochs=4, floor=0.1, warmup=1))])
def test_schedules_of_older_checkpoints(old, now):
    """Without the settings that came later: the same schedule, also once both are written again."""
    assert schedule_from_dict(old) == now and schedule_to_dict(schedule_from_dict(old)) == schedule_to_dict(now)


def old_cosine(progress, epochs, floor, warmup):
    """As in version 0.1.0."""
    if progress < warmup:
        return max(progress / warmup, 0.01)
    done = min((progress - warmup) / max(epochs - warmup, 1e-9), 1.0)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done))


@pytest.mark.parametrize("epochs, floor, warmup", [(3, 0.0, 0.0), (26, 0.0, 0.0), (7, 0.1, 1.5), (5, 0.37, 5)])
def test_the_cosine_of_older_runs_bit_for_bit(epochs, floor, warmup):
    cosine = Cosine(epochs=epochs, floor=floor, warmup=warmup)
    for step in range(37 * (epochs + 1)):
        assert cosine.factor(step / 37) == old_cosine(step / 37, epochs, floor, warmup)


INVALID = [
    ({"kind": "constant", "warmup": -1}, "Constant: warmup must be 0 or more epochs, got -1"),
    ({"kind": "constant", "warmup": math.nan}, "warmup must be 0 or more epochs, got nan"),
    ({"kind": "step", "warmup": "1"}, "StepDecay: warmup must be 0 or more epochs, got '1'"),
    ({"kind": "plateau", "warmup_start": 1.5}, "warmup_start must be a factor from 0 to 1, got 1.5"),
    ({"kind": "plateau", "warmup_shape": "cos"}, "warmup_shape must be one of linear, constant, got 'cos'"),
    ({"kind": "constant", "warmup": 1, "warmup_shape": "constant"}, "warmup_start must be positive .* warm-up, got 0"),
    ({"kind": "cosine", "epochs": 3, "warmup": 4}, "warmup must be at most the 3 epochs of the schedule, got 4"),
    ({"kind": "onecycle", "epochs": 3, "warmup": 4}, "warmup must be at most the 3 epochs of the schedule, got 4"),
    ({"kind": "cosine", "epochs": -1}, "epochs must be 0 or more epochs, got -1"),
    ({"kind": "cosine", "floor": 2}, "floor must be a factor from 0 to 1, got 2"),
    ({"kind": "step", "by": 0}, "by must be a positive number, got 0"),
    ({"kind": "step", "epochs": 30}, "epochs must be a list of epochs, each 0 or more, got 30"),
    ({"kind": "step", "epochs": [3, -1]}, r"epochs must be a list of epochs, each 0 or more, got \(3, -1\)"),
    ({"kind": "plateau", "by": -0.1}, "by must be a positive number, got -0.1"),
    ({"kind": "plateau", "patience": 0}, "patience must be a whole number of at least 1, got 0"),
    ({"kind": "plateau", "patience": 1.5}, "patience must be a whole number of at least 1, got 1.5"),
    ({"kind": "plateau", "times": True}, "times must be a whole number of at least 0, got True"),
    ({"kind": "exponential", "every": 0}, "ExponentialDecay: every must be a positive number, got 0"),
    ({"kind": "polynomial", "power": 0}, "Polynomial: power must be a positive number, got 0"),
    ({"kind": "onecycle", "pct_start": 0}, "OneCycle: pct_start must be between 0 and 1, both excluded, got 0"),
    ({"kind": "onecycle", "pct_start": 1}, "pct_start must be between 0 and 1, both excluded, got 1"),
    ({"kind": "onecycle", "pct_start": 0.5, "three_phase": True}, "pct_start must be below 0.5 in three phases, got"),
    ({"kind": "onecycle", "div_factor": 0}, "div_factor must be a positive number, got 0"),
    ({"kind": "onecycle", "final_div_factor": math.inf}, "final_div_factor must be a positive number, got inf"),
    ({"kind": "onecycle", "anneal": "sin"}, "anneal must be one of cos, linear, got 'sin'"),
    ({"kind": "onecycle", "three_phase": 1}, "three_phase must be one of False, True, got 1"),
]


@pytest.mark.parametrize("data, message", INVALID)
def test_invalid_settings_are_refused(data, message):
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    with pytest.raises(ConfigError, match=message):
        schedule_from_dict(data)
    with pytest.raises(ConfigError, match=message):
        SCHEDULES[settings.pop("kind")](**settings)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_stretching_keeps_the_curve(kind):
    """A run that is three times as long has each factor at three times the progress."""
    schedule = AFTER_WARMUP[kind][0]
    longer = schedule.stretched(24, 8)
    assert longer.warmup == 12 and type(longer) is type(schedule)
    for step in range(33):
        assert longer.factor(3 * step / 4) == pytest.approx(schedule.factor(step / 4), abs=1e-12)


def test_schedules_by_their_kind_alone():
    assert schedule_for("step", 12) == StepDecay(epochs=(4, 8)) and schedule_for("cosine", 12) == Cosine(epochs=12)
    assert schedule_for("onecycle", 12) == OneCycle(epochs=12) and schedule_for("plateau", 12) == Plateau()
    assert schedule_for("exponential", 30) == ExponentialDecay(by=0.95, every=1 / 3)


@pytest.mark.parametrize("schedule, words", [
    (Constant(), "constant"),
    (StepDecay(epochs=(3, 5.5)), "step, times 0.1 at epochs 3 5.5"),
    (ExponentialDecay(by=0.96, every=8), "exponential, times 0.96 every 8 epochs"),
    (Plateau(patience=1), "plateau, times 0.1 after 1 epoch without improvement, 3 times at most"),
    (Cosine(epochs=5, floor=0.1, warmup=1), "cosine over 5 epochs to 0.1, with 1 epoch of warm-up from 0"),
    (Polynomial(epochs=60, power=0.5), "polynomial of power 0.5 over 60 epochs"),
    (OneCycle(epochs=10), "one cycle over 10 epochs (cos: 0.04 at 0 %, 1 at 30 %, 4e-06 at 100 %)"),
    (Constant(warmup=2, warmup_start=0.1, warmup_shape="constant"), "constant, with 2 epochs of warm-up at 0.1"),
    (StepDecay(epochs=(20 / 3, 1500.0), warmup=1 / 26), "step, times 0.1 at epochs 6.67 1500, with 0.0385 epochs of "
                                                        "warm-up from 0")])
def test_schedules_in_words(schedule, words):
    assert schedule.in_words() == words


def test_unknown_schedules_and_settings_are_named():
    with pytest.raises(ConfigError, match="'stairs'.*constant, step, plateau, cosine"):
        schedule_from_dict({"kind": "stairs"})
    with pytest.raises(ConfigError, match="'pace'.*patience"):
        schedule_from_dict({"kind": "plateau", "pace": 3})


def test_a_schedule_that_is_not_plain_data():
    with pytest.raises(ConfigError, match="NoneType is no schedule that a recipe can hold: expected one of Constant"):
        schedule_to_dict(None)
