"""Schedules equal PyTorch's, step for step. Each test says which of PyTorch's settings gives which of ours."""

from __future__ import annotations

import pytest

from minicnn.train.schedule import Constant, Cosine, ExponentialDecay, OneCycle, Plateau, Polynomial, StepDecay

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
schedulers = torch.optim.lr_scheduler

LR, EPOCHS, STEPS = 0.3, 8, 5                       # learning rate; epochs, and steps in each
TOTAL = EPOCHS * STEPS


def theirs(make, steps: int = TOTAL) -> list[float]:
    """Learning rate of each step; `make` gets an optimiser and returns its scheduler, which counts steps."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR, momentum=0.9)
    scheduler, rates = make(optimiser), []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


def assert_equal(ours, make, steps: int = TOTAL):
    rates = [LR * ours.factor(step / STEPS) for step in range(steps)]
    assert rates == pytest.approx(theirs(make, steps), rel=1e-12, abs=1e-12 * LR)
    assert len(set(rates)) > 1


def test_multi_step():
    assert_equal(StepDecay(epochs=(2, 5, 6), by=0.2),
                 lambda sgd: schedulers.MultiStepLR(sgd, [2 * STEPS, 5 * STEPS, 6 * STEPS], gamma=0.2))


def test_exponential():
    assert_equal(ExponentialDecay(by=0.5, every=3), lambda sgd: schedulers.StepLR(sgd, 3 * STEPS, gamma=0.5))
    assert_equal(ExponentialDecay(by=0.98, every=1 / STEPS), lambda sgd: schedulers.ExponentialLR(sgd, gamma=0.98))


def test_cosine():
    assert_equal(Cosine(epochs=EPOCHS, floor=0.1),
                 lambda sgd: schedulers.CosineAnnealingLR(sgd, TOTAL, eta_min=0.1 * LR))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial(power):
    assert_equal(Polynomial(epochs=EPOCHS, power=power), lambda sgd: schedulers.PolynomialLR(sgd, TOTAL, power=power))


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle(anneal, three_phase):
    """PyTorch's phases end one step earlier than its settings say: at step 0.35 * 40 here, at p (40 + 1) - 1 there."""
    ours = OneCycle(epochs=EPOCHS, pct_start=0.35, div_factor=10, final_div_factor=50, anneal=anneal,
                    three_phase=three_phase)
    settings = {"anneal_strategy": anneal, "three_phase": three_phase, "div_factor": 10, "final_div_factor": 50}
    assert_equal(ours, lambda sgd: schedulers.OneCycleLR(sgd, LR, TOTAL + 1, pct_start=(0.35 * TOTAL + 1) / (TOTAL + 1),
                                                         **settings), TOTAL + 1)


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_plateau(patience):
    """PyTorch's patience is one less; it has no `times`, which is here what its min_lr does."""
    errors = [0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.6, 0.65, 0.64, 0.63, 0.62, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    ours = Plateau(by=0.1, patience=patience, times=3)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = schedulers.ReduceLROnPlateau(optimiser, factor=0.1, patience=patience - 1, threshold=0.0,
                                             min_lr=LR * 1e-3, eps=0.0)
    for epoch, error in enumerate(errors):
        assert LR * ours.factor(epoch) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12), epoch
        ours.epoch_done(error, epoch + 1)
        scheduler.step(error)
    assert ours.state["drops"] > 1


WARM = {"warmup": 2, "warmup_start": 0.25}
AFTER = {
    "constant": (Constant(**WARM), lambda sgd: schedulers.ConstantLR(sgd, factor=1.0)),
    "step": (StepDecay(epochs=(4, 6), **WARM),                         # PyTorch's counts from the end of the warm-up
             lambda sgd: schedulers.MultiStepLR(sgd, [2 * STEPS, 4 * STEPS], gamma=0.1)),
    "cosine": (Cosine(epochs=EPOCHS, **WARM), lambda sgd: schedulers.CosineAnnealingLR(sgd, TOTAL - 2 * STEPS)),
    "polynomial": (Polynomial(epochs=EPOCHS, power=2.0, **WARM),
                   lambda sgd: schedulers.PolynomialLR(sgd, TOTAL - 2 * STEPS, power=2.0)),
}


@pytest.mark.parametrize("kind", AFTER)
def test_warm_up(kind):
    ours, after = AFTER[kind]
    assert_equal(ours, lambda sgd: schedulers.SequentialLR(sgd, [
        schedulers.LinearLR(sgd, start_factor=0.25, total_iters=2 * STEPS), after(sgd)], milestones=[2 * STEPS]))


def test_constant_warm_up():
    assert_equal(StepDecay(epochs=(4,), warmup=1, warmup_start=0.1, warmup_shape="constant"),
                 lambda sgd: schedulers.SequentialLR(sgd, [
                     schedulers.ConstantLR(sgd, factor=0.1, total_iters=STEPS),
                     schedulers.MultiStepLR(sgd, [3 * STEPS])], milestones=[STEPS]))
