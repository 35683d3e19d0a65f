"""Diagnostics: each problem is reported once, and training without problems reports nothing."""

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.data.dataset import Dataset
from minicnn.data.procedural import procedural_sets
from minicnn.evaluate.evaluate import Evaluation
from minicnn.train import loop
from minicnn.train.loop import Trainer
from minicnn.train.recipe import PAPER
from minicnn.train.recipes import named_recipe, other_weights
from minicnn.train.watch.diagnostics import Diagnostics, dead_units
from tests.helpers.small_run import small_net, small_recipe, small_trainer

LABELS = np.arange(100) % 4


def evaluation(top1, labels=LABELS):
    return Evaluation(1.0, top1, 1.0, np.full((len(labels), 4), 0.25), labels)


def check(diagnostics, loss=1.0, top1=0.6, val=0.5, net=None, velocities=None, factor=1.0, images=()):
    train = {"loss": loss, "top1": top1}
    return diagnostics.check(train, evaluation(val), net or small_net(), velocities or {}, factor, images)


def test_nothing_is_reported_of_a_good_epoch():
    diagnostics = Diagnostics(LABELS)
    for loss in (1.4, 1.2, 0.9):
        assert check(diagnostics, loss) == []


def test_stuck():
    """Two epochs at ln 4, and then it is reported once."""
    diagnostics = Diagnostics(LABELS)
    assert check(diagnostics, np.log(4), 0.25) == []
    (line,) = check(diagnostics, np.log(4) - 0.001, 0.26)
    assert line.startswith("warning: the loss stays at 1.385; 1.386 is what") and "three times as high" in line
    assert check(diagnostics, np.log(4), 0.25) == []
    diagnostics = Diagnostics(LABELS)
    check(diagnostics, np.log(4), 0.25)
    assert check(diagnostics, np.log(4), 0.5) == []                    # half of the answers are right: it does learn


def test_stuck_counts_how_frequent_classes_are():
    """Nine of ten images are of one class: 0.325 is what nobody needs to look for, not ln 2."""
    diagnostics = Diagnostics(np.array([0] * 90 + [1] * 10))
    check(diagnostics, 0.325, 0.9)
    assert "0.325 is what" in check(diagnostics, 0.325, 0.9)[0]


def test_within_a_long_epoch(tmp_path, monkeypatch):
    """ImageNet's epoch has 10,009 steps: it is checked every DIAGNOSE_EVERY steps, each time on what came since."""
    monkeypatch.setattr(loop, "DIAGNOSE_EVERY", 3)
    seen = []
    monkeypatch.setattr(Diagnostics, "check", lambda self, train, val, *rest: seen.append((train, val is None)) or [])
    trainer = small_trainer(tmp_path / "run")
    losses, inner = [], trainer.net.loss
    trainer.net.loss = lambda *args, **options: losses.append(inner(*args, **options)) or losses[-1]
    trainer.fit(1)
    steps = len(trainer.loader)
    assert [within for _, within in seen] == [True] * (len(seen) - 1) + [False]
    assert len(seen) == (steps - 1) // 3 + 1 > 3
    for number, (train, _) in enumerate(seen):
        window = losses[3 * number:] if number == len(seen) - 1 else losses[3 * number:3 * number + 3]
        assert train["loss"] == pytest.approx(np.mean(window), rel=1e-6)


@pytest.mark.parametrize("shuffled", [True, False])
def test_shuffled_labels(tmp_path, shuffled):
    """Images that do not belong to their labels: the loss stays where knowing nothing puts it, and that is reported."""
    lines = []
    train, val, _ = procedural_sets((480, 40, 4), seed=3, size=32)
    labels = np.random.default_rng(0).permutation(train.labels) if shuffled else train.labels
    train = Dataset("train", train.classes, labels, range(480), train.read, size=(32, 32))
    Trainer(small_net(), small_recipe(), train, val, tmp_path / "run", progress=False, say=lines.append).fit(4)
    assert any("look at some training images with their labels" in line for line in lines) == shuffled, lines


def test_worse_than_not_looking():
    diagnostics = Diagnostics(LABELS)
    assert check(diagnostics, loss=2.5, top1=0.3) == []                # a first epoch: initial weights too large
    (line,) = check(diagnostics, loss=2.5, top1=0.3)
    assert "could be had without looking" in line and "a third of the learning rate" in line


def test_validation_at_chance():
    (line,) = check(Diagnostics(LABELS), loss=0.3, top1=0.95, val=0.25)
    assert "training accuracy is 95 %, validation accuracy 25 %" in line and "same order" in line
    assert check(Diagnostics(LABELS), loss=0.3, top1=0.95, val=0.5) == []


@pytest.mark.parametrize("ratio, factor, said", [(0.2, 1.0, "a lower learning rate"), (1e-8, 1.0, "hardly learns"),
                                                 (1e-8, 0.01, ""), (1e-3, 1.0, "")])
def test_size_of_updates(ratio, factor, said):
    net = small_net()
    velocities = {"fc2.w": ratio * net.params["fc2.w"].data}
    lines = check(Diagnostics(LABELS), net=net, velocities=velocities, factor=factor)
    assert [said in line and f"a step changes fc2.w by {ratio:.1g}" in line for line in lines] == [True] * bool(said)


def test_dead_units(rng):
    net = small_net()
    x = [rng.standard_normal((32, 24, 24, 3)).astype("f4") for _ in range(3)]
    assert dead_units(net, x) == {}
    net.params["fc2.b"].data[:20], net.params["fc2.b"].data[20:] = -1e6, 1e3
    (finding,) = dead_units(net, x).values()
    assert "20 of 32 units are 0 for each of 64 images" in finding.text
    assert dead_units(net, x[:1]) == {}                         # too few images to say so


def test_a_unit_that_is_alive_for_one_batch_is_not_dead():
    """Whichever batch that is: bright images give y > 0 everywhere, dark ones nowhere."""
    b = Builder((2, 2, 3))
    b.conv("conv", 4, 1)
    b.relu("relu")
    net = b.net(device="reference")
    net.params["conv.w"].data[...] = 1
    bright = np.ones((32, 2, 2, 3), np.float32)
    assert dead_units(net, [bright, -bright]) == dead_units(net, [-bright, bright]) == {}
    assert "4 of 4 units are 0" in dead_units(net, [-bright, -bright])["dead relu"].text


def test_a_run_prints_it(tmp_path):
    """A learning rate at which nothing moves; the run goes on, and its files hold nothing of the diagnostics."""
    lines = []
    trainer = small_trainer(tmp_path / "run", recipe=small_recipe(lr=1e-12), say=lines.append)
    trainer.fit(2)
    watched = [line for line in lines if line.startswith("warning: ")]
    assert any("hardly learns" in line for line in watched) and len(watched) == len(set(watched))
    assert "warning" not in (tmp_path / "run/metrics.jsonl").read_text()


def directions(lines) -> set[str]:
    """The learning rates that these lines ask for."""
    words = {"lower": ("a lower learning rate", "a third of the learning rate"),
             "higher": ("a higher learning rate", "a learning rate three times as high")}
    return {way for way, texts in words.items() if any(text in line for text in texts for line in lines)}


def test_advice_does_not_contradict_itself(rng):
    """Dead units ask for a lower learning rate; a loss that stays then asks for no higher one, nor vice versa."""
    dying = small_net()
    dying.params["fc2.b"].data[:20], dying.params["fc2.b"].data[20:] = -1e6, 1e3
    images = [rng.standard_normal((64, 24, 24, 3)).astype("f4")]
    low = {"fc2.w": 1e-8 * dying.params["fc2.w"].data}

    def lines(*checks) -> list[str]:
        diagnostics = Diagnostics(LABELS, "try initial weights fitted to the images (--recipe long)")
        return [line for options in checks for line in check(diagnostics, **options)]

    stuck = {"loss": np.log(4), "top1": 0.25, "val": 0.25}
    found = lines({"net": dying, "images": images, **stuck}, stuck, stuck)
    assert len(found) == 2 and directions(found) == {"lower"} and "fitted to the images" in found[1]
    found = lines(stuck, stuck, {"net": dying, "images": images, **stuck})
    assert len(found) == 2 and directions(found) == {"higher"} and "fitted to the images" in found[1]
    found = lines({"net": dying, "velocities": low}, {"loss": 2.5, "top1": 0.3}, {"loss": 2.5, "top1": 0.3})
    assert len(found) == 2 and directions(found) == {"higher"}


def test_advice_about_initial_weights_can_be_followed():
    """A recipe on the command line, where the net has one that fits them; else an argument of the layers."""
    assert other_weights(PAPER) == "try initial weights fitted to the images (--recipe long)"
    assert named_recipe("alexnet", "long").recipe.calibrate                     # the recipe of that name
    assert other_weights(named_recipe("alexnet", "long").recipe) == "try another seed"
    assert "calibrate" not in other_weights(small_recipe()) and "init=" in other_weights(small_recipe())
