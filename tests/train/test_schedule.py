"""The learning rate over epochs, and what a checkpoint keeps of a schedule."""

import math

import pytest

from minicnn.errors import ConfigError
from minicnn.train.schedule import Constant, Cosine, Plateau, StepDecay, schedule_from_dict, schedule_to_dict


def test_constant_and_step():
    assert Constant().factor(7.5) == 1.0
    step = StepDecay(epochs=(2, 4), by=0.1)
    assert [step.factor(x) for x in (0, 1.99, 2.0, 3.5)] == [1.0, 1.0, 0.1, 0.1]
    assert math.isclose(step.factor(4), 0.01)


def test_cosine_rises_and_falls():
    cosine = Cosine(epochs=10, floor=0.1, warmup=2)
    assert 0 < cosine.factor(0) < cosine.factor(1) == 0.5 < cosine.factor(2) == 1.0
    assert [round(cosine.factor(x), 9) for x in (6, 10, 12)] == [0.55, 0.1, 0.1]


def plateau_rates(plateau, errors):
    rates = []
    for epoch, error in enumerate(errors):
        rates.append(round(plateau.factor(epoch), 6))
        plateau.epoch_done(error)
    return rates


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
        assert rates + plateau_rates(second, errors[cut:]) == plateau_rates(Plateau(patience=2), errors)


@pytest.mark.parametrize("schedule", [Constant(), StepDecay(epochs=(3, 5)), Plateau(patience=7),
                                      Cosine(epochs=4, warmup=1)])
def test_schedules_are_plain_data(schedule):
    assert schedule_from_dict(schedule_to_dict(schedule)) == schedule


def test_unknown_schedules_and_settings_are_named():
    with pytest.raises(ConfigError, match="'stairs'.*constant, step, plateau, cosine"):
        schedule_from_dict({"kind": "stairs"})
    with pytest.raises(ConfigError, match="'pace'.*patience"):
        schedule_from_dict({"kind": "plateau", "pace": 3})
