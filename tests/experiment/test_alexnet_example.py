"""The main example: what it says to input that cannot work, and that nothing is left behind."""

import dataclasses
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

from minicnn.data.elpv import MissingPackageError
from minicnn.data.source import open_data
from minicnn.experiment.page import command
from minicnn.experiment.prepare import open_sets, prepare
from minicnn.experiment.recipe import recipe_of
from minicnn.experiment.settings import DEFAULTS, settle
from minicnn.train.loop import Outcome, Trainer
from minicnn.train.recipe import AdamWRecipe, AverageRecipe, SGDRecipe
from minicnn.train.runs.checkpoint import load_checkpoint, save_checkpoint
from minicnn.train.schedule import Cosine, OneCycle, StepDecay
from tests.helpers.models import change_model
from tests.helpers.small_run import load_example, save_tree, small_net, small_recipe, small_trainer


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        change_model(patch, "alexnet", fc=16)                       # not 61 million weights for every case
        yield load_example()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Sets and runs that something is wrong with."""
    root = tmp_path_factory.mktemp("place")
    save_tree(root / "photos", per_class=6)
    save_tree(root / "one", per_class=3, classes=1)
    save_tree(root / "broken", per_class=6)
    for path in (root / "broken").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:40])
    (root / "empty").mkdir()
    (root / "runs/early").mkdir(parents=True)
    (root / "runs/early/metrics.jsonl").write_text("")
    about = {"data": str(root / "photos"), "variant": "paper", "epochs": 1, "batch": 8}
    small_trainer(root / "runs" / "small", about=about).fit(1)
    for name, length in (("cut", 2000), ("nothing", 0)):
        (root / "runs" / name).mkdir()
        whole = (root / "runs" / "small" / "last.safetensors").read_bytes()
        (root / "runs" / name / "last.safetensors").write_bytes(whole[:length])
    photos = open_data(root / "photos", size=32)                               # the classes are right, the net is not
    recipe = dataclasses.replace(small_recipe(batch=4), net={"model": "alexnet", "variant": "paper", "num_classes": 2})
    Trainer(small_net(classes=2), recipe, photos.train, photos.val, root / "runs" / "other", about=about,
            progress=False, say=None).fit(1)
    without_description(root / "runs" / "other" / "best.safetensors")
    return root


def without_description(path) -> None:
    """As version 0.1.0 wrote it: what net it is of is in the recipe alone."""
    saved = load_checkpoint(path)
    del saved.meta["net"]
    save_checkpoint(path, saved.params, saved.slots, saved.data, saved.meta)


BAD = {
    "no such folder": (["--data", "{root}/nowhere"], "nowhere does not exist; expected DIR/train"),
    "an empty folder": (["--data", "{root}/empty"], "holds no images"),
    "one class": (["--data", "{root}/one"], "only one class folder with images, stripes/"),
    "every image cut short": (["--data", "{root}/broken", "--batch", "2"], "can be read"),
    "a batch larger than the set": (["--data", "{root}/photos", "--batch", "500"], "a batch of 500 is larger than"),
    "an empty batch": (["--data", "{root}/photos", "--batch", "0"], "a batch of 0"),
    "unknown variant": (["--variant", "alexnet2"], "unknown variant 'alexnet2' of alexnet: expected one of paper"),
    "weights of another net": (["--data", "{root}/photos", "--batch", "4", "--init-from", "small"],
                               "none of its layers has the name and shape"),
    "no weights to begin with": (["--data", "{root}/photos", "--init-from", "nosuch"], "nosuch: no such run"),
    "a layer to freeze that is not there": (["--data", "{root}/photos", "--batch", "4", "--freeze", "conv1,conv9"],
                                            "--freeze names 'conv9': did you mean 'conv5'? expected one of conv1"),
    "a new head for nothing": (["--data", "{root}/photos", "--new-head"], "add --init-from RUN"),
    "two ways to begin": (["--resume", "small", "--init-from", "small"], "choose one of them"),
    "a page of what is only evaluated": (["--evaluate", "other", "--results", "{root}/page"],
                                         "leave one of the two out"),
    "unknown recipe": (["--recipe", "longer"], "unknown recipe 'longer': did you mean 'long'? expected one of short"),
    "unknown device": (["--data", "{root}/photos", "--device", "tpu"], "unknown device 'tpu'"),
    "no GPU": (["--data", "{root}/photos", "--device", "cuda"], "device 'cuda' cannot be used"),
    "a precision without a GPU": (["--data", "{root}/photos", "--device", "cpu", "--precision", "tf32"],
                                  "unknown precision 'tf32' of device 'cpu': expected one of fp32, bf16"),
    "a precision of the reference": (["--data", "{root}/photos", "--device", "reference", "--precision", "bf16"],
                                     "one can be chosen for cpu and cuda"),
    "unknown precision": (["--data", "{root}/photos", "--precision", "fp8"], "unknown precision 'fp8'"),
    "two precisions": (["--data", "{root}/photos", "--device", "cpu:bf16", "--precision", "fp32"],
                       "--device cpu:bf16 and --precision fp32 contradict each other"),
    "no threads": (["--threads", "0"], "threads must be at least 1"),
    "no epochs": (["--data", "{root}/photos", "--batch", "4", "--epochs", "0"], "epochs must be at least 1, got 0"),
    "unknown schedule": (["--data", "{root}/photos", "--schedule", "cosin"], "--schedule: unknown schedule 'cosin': "
                         "did you mean 'cosine'? expected one of constant, step"),
    "unknown optimiser": (["--data", "{root}/photos", "--optimiser", "adm"], "--optimiser: unknown optimiser 'adm': "
                          "did you mean 'adam'? expected one of sgd, adam, adamw"),
    "an average of nothing": (["--data", "{root}/photos", "--ema", "1"], "--ema must lie in [0, 1), such as 0.999"),
    "a warm-up that is too long": (["--data", "{root}/photos", "--epochs", "3", "--warmup", "4"],
                                   "--warmup must be from 0 to the 3 epochs of the run, got 4"),
    "a negative warm-up": (["--data", "{root}/photos", "--warmup", "-1"], "--warmup must be 0 or more epochs, got -1"),
    "a warm-up before a schedule that begins with one": (["--data", "{root}/photos", "--schedule", "onecycle",
                                                         "--warmup", "1"], "onecycle rises from there by itself"),
    "a negative weight decay": (["--data", "{root}/photos", "--norm-weight-decay", "-1"],
                                "--norm-weight-decay must be 0 or more, got -1"),
    "a weight decay of nothing": (["--data", "{root}/photos", "--batch", "4", "--norm-weight-decay", "0"],
                                  "batch normalisation, which this net does not have"),
    "a folder with the end of a line in its name": (["--data", "{root}/no\nwhere"], r"no\nwhere does not exist"),
    "a negative learning rate": (["--data", "{root}/photos", "--batch", "4", "--lr", "-1"],
                                 "learning rate must be positive"),
    "an infinite learning rate": (["--data", "{root}/photos", "--batch", "4", "--lr", "inf"],
                                  "--lr: the learning rate must be positive and finite, got inf"),
    "no learning rate": (["--data", "{root}/photos", "--batch", "4", "--lr", "0"], "positive and finite, got 0"),
    "no number": (["--data", "{root}/photos", "--batch", "4", "--lr", "nan"], "positive and finite, got nan"),
    "a negative seed": (["--data", "{root}/photos", "--batch", "4", "--seed", "-1"], "--seed must be 0 or more, got"),
    "a negative size": (["--data", "{root}/photos", "--batch", "4", "--size", "-5"], "--size must be at least 1, got"),
    "no size": (["--data", "{root}/photos", "--batch", "4", "--size", "0"], "--size must be at least 1, got 0"),
    "a word for a number": (["--epochs", "three"], "argument --epochs: invalid int value: 'three'"),
    "unknown option": (["--epoch", "3"], "unrecognized arguments: --epoch"),
    "a misspelt option": (["--dta", "3"], "unrecognized arguments: --dta 3; did you mean --data?"),
    "a run without its first checkpoint": (["--resume", "early"], "runs/early was stopped before its first checkpoint; "
                                           "start it again"),
    "a folder of runs": (["--evaluate", "{root}/runs"], "is a folder of runs; name one of them: cut, nothing, other"),
    "a page, and no data": (["--data", "{root}/nowhere", "--results", "{root}/nodir/x.md"], "does not exist"),
    "no run to resume": (["--out", "{root}/elsewhere", "--resume"], "no run to resume"),
    "unknown run": (["--resume", "nosuch"], "nosuch: no such run"),
    "run without a checkpoint": (["--evaluate", "{root}/empty"], "best.safetensors: no such checkpoint"),
    "a checkpoint cut short": (["--resume", "cut"], "last.safetensors: cut short or damaged, 2,000 bytes"),
    "an empty checkpoint": (["--resume", "{root}/runs/nothing/last.safetensors"], "the file is empty"),
    "a checkpoint of another net": (["--resume", "other"], "of another network: 'conv1.w' is (5, 5, 3, 8) there"),
    "evaluating another net": (["--evaluate", "other"], "of another network: 'conv1.w'"),
    "a checkpoint of other classes": (["--resume", "small"], "was trained on 4 classes (stripes, checks, rings ...), "
                                      "the data has 2 classes (checks, stripes)"),
    "evaluating other classes": (["--evaluate", "small"], "was trained on 4 classes (stripes, checks, rings ...)"),
    "a run folder in use": (["--data", "{root}/photos", "--run-name", "small"], "exists and is not empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(example, place, case, capsys):
    arguments, message = BAD[case]
    arguments = [argument.format(root=place) for argument in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(place / "runs")]
    before = sorted(place.rglob("*"))
    try:
        code = example.main(arguments)
    except SystemExit as leaving:                       # argparse
        code = leaving.code
    errors = capsys.readouterr().err
    assert code == 2 and errors.startswith("error: ") and message in errors
    assert errors.count("\n") == 1 and errors.endswith("\n"), errors
    assert sorted(place.rglob("*")) == before


def test_runs_and_their_page(example, tmp_path, capsys, monkeypatch):
    """A page that two runs have written, with commands that start them again and nothing of where they ran."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, count in (("train", 8), ("val", 4), ("test", 4)):
        save_tree(tmp_path / "photos" / part, per_class=count)
    options = ["--data", str(tmp_path / "photos"), "--recipe", "short", "--batch", "4", "--epochs", "1", "--out",
               str(tmp_path / "runs"), "--results", str(tmp_path / "new" / "page"), "--note", "Drawn, not taken."]
    assert example.main([*options, "--ten-crop"]) == 0
    tuned = ["--seed", "1", "--init-from", "photos-paper-1", "--new-head", "--freeze", "conv1"]
    assert example.main([*options, *tuned]) == 0
    reports = json.loads((tmp_path / "new/page.json").read_text())
    text, said = (tmp_path / "new/page.md").read_text(), capsys.readouterr().out
    assert text.count("| photos | 2 | 16 | alexnet:paper | short | 1 |") == 2 and "Drawn, not taken." in text
    first = "--data=photos --variant=paper --recipe=short --epochs=1 --batch=4 --lr=0.03 --seed=0 --device=cpu --thr"
    assert f"python examples/alexnet_imagenet.py {first}" in text
    assert "--init-from=photos-paper-1 --new-head --freeze=conv1` (" in text
    assert str(tmp_path) not in text + (tmp_path / "new/page.json").read_text()
    assert f"{100 * reports[0]['ten crops']['top1']:.1f} % " in said and "ten crops" not in reports[1]
    assert all(report["minutes"] > 0 for report in reports)


OLD = Path(__file__).parents[1] / "vectors/v0_1/alexnet_meta.json"


def as_version_0_1(path) -> None:
    """The checkpoint with the metadata that version 0.1.0 wrote: the same keys in it, in its settings and recipe."""
    saved, old = load_checkpoint(path), json.loads(OLD.read_text())
    meta = saved.meta
    crop = meta["recipe"]["preprocess"]["crop"]
    recipe = {part: meta["recipe"].get(part, {}) for part in old["recipe"]}
    recipe["augment"] = {**recipe["augment"], "crop": crop}
    recipe["sgd"] = {knob: meta["recipe"]["optimiser"][knob] for knob in old["recipe"]["sgd"]}
    meta = {key: meta[key] for key in old} | {"recipe": recipe, "about": {key: meta["about"][key]
                                                                         for key in old["about"]}}
    save_checkpoint(path, saved.params, saved.slots, saved.data, meta)


def test_a_run_of_version_0_1_is_resumed_to_its_end(example, tmp_path, capsys, monkeypatch):
    """Tested, drawn and added to a page, as every run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, count in (("train", 8), ("val", 4), ("test", 4)):
        save_tree(tmp_path / "photos" / part, per_class=count)
    run = tmp_path / "runs/photos-paper-1"
    assert example.main(["--data", str(tmp_path / "photos"), "--recipe", "short", "--batch", "4", "--epochs", "1",
                         "--out", str(tmp_path / "runs")]) == 0
    as_version_0_1(run / "last.safetensors")
    as_version_0_1(run / "best.safetensors")
    capsys.readouterr()
    assert example.main(["--resume", str(run), "--results", str(tmp_path / "page")]) == 0
    assert "pictures" in capsys.readouterr().out
    assert "| photos | 2 | 16 | alexnet:paper | short | 1 |" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(("more", "epochs", "recipe"), [
    ([], 200, r"long, fitted to \d+ training images: 200 epochs"),
    (["--epochs", "7"], 7, r"long, fitted to \d+ training images: 7 epochs"),
    (["--recipe", "paper"], 90, "paper: 90 epochs, batch 4, SGD with momentum 0.9, .* Published: 90 epochs; error")])
def test_a_folder_gets_a_recipe_that_fits_it(example, tmp_path, capsys, monkeypatch, more, epochs, recipe):
    """Unless one was asked for; what was chosen is printed, and how to get the published one."""
    asked = []
    monkeypatch.setattr(Trainer, "fit", lambda trainer, epochs: asked.append((epochs, trainer.recipe.calibrate)) or
                        Outcome(True, 0, None, tmp_path))
    save_tree(tmp_path / "photos", per_class=24)
    assert example.main(["--data", str(tmp_path / "photos"), "--batch", "4", "--out", str(tmp_path), *more]) == 130
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(recipe, out) and ("--recipe paper" in out) == (recipe[:5] != "paper")
    assert asked[0][0] == epochs and ("conv1" in asked[0][1]) == (recipe[:5] != "paper")


def test_a_page_of_something_else_is_left_alone(example, place, tmp_path, capsys):
    (tmp_path / "page.json").write_text("[{}]")
    assert example.main(["--data", str(place / "photos"), "--out", str(tmp_path / "runs"), "--results",
                         str(tmp_path / "page")]) == 2
    assert "page.json does not hold the runs of an earlier --results" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists() and (tmp_path / "page.json").read_text() == "[{}]"


def test_a_recipe_reaches_the_net_and_the_learning_rates(example, tmp_path, capsys):
    """The long recipe on the procedural set: its initialisation, and its factors on the learning rates."""
    settings = settle(example.parse(["--data", "synthetic", "--recipe", "long", "--batch", "8"]))
    assert (settings["epochs"], settings["batch"], settings["recipe"]) == (26, 8, "long")
    _, net = prepare(settings)
    recipe = recipe_of(settings, net.num_classes, 224)
    assert recipe.optimiser.lr_mults(net)["fc6.w"] == 0.3 and recipe.schedule.epochs == 26
    assert recipe.calibrate["conv1"] == 60 and set(recipe.calibrate) == {name[:-2] for name in net.params}
    assert recipe_of({**settings, "init_from": "a run"}, 4, 224).calibrate == {}
    assert not recipe.augment.updown and recipe_of({**settings, "data": "elpv"}, 2, 224).augment.updown


def test_a_schedule_that_was_asked_for(example):
    """In place of the recipe's, over the epochs of the run; it is in the command that starts the run again."""
    def settled(*options):
        settings = settle(example.parse(["--data", "synthetic", "--epochs", "6", *options]))
        return recipe_of(settings, 4, 224).schedule, command(["train"], settings)

    assert settled()[0] == Cosine(epochs=6) and "schedule" not in settled()[1] and "warmup" not in settled()[1]
    assert settled("--warmup", "1.5")[0] == Cosine(epochs=6, warmup=1.5)
    schedule, words = settled("--schedule", "step", "--warmup", "1")
    assert schedule == StepDecay(epochs=(2, 4), warmup=1) and "--schedule=step --warmup=1.0" in words
    assert settled("--schedule", "onecycle")[0] == OneCycle(epochs=6)


def test_an_optimiser_that_was_asked_for(example):
    """In place of the recipe's, with its usual learning rate, but the recipe's batch and factors by layer."""
    def settled(*options):
        settings = settle(example.parse(["--data", "synthetic", "--recipe", "long", *options]))
        return recipe_of(settings, 4, 224), command(["train"], settings)

    recipe, words = settled()
    assert isinstance(recipe.optimiser, SGDRecipe) and recipe.average is None
    assert "optimiser" not in words and "ema" not in words and settled("--optimiser", "sgd")[0] == recipe
    recipe, words = settled("--optimiser", "adamw", "--ema", "0.99")
    assert recipe.optimiser == AdamWRecipe(batch=32, layer_lr={"fc6": 0.3, "fc7": 0.3, "fc8": 0.3})
    assert recipe.average == AverageRecipe(0.99) and "--lr=0.001 --optimiser=adamw --ema=0.99" in words
    assert recipe.optimiser.norm_decay is None and "norm" not in words
    recipe, words = settled("--norm-weight-decay", "0")
    assert recipe.optimiser.norm_decay == 0 and "--norm-weight-decay=0.0" in words
    assert settled("--optimiser", "adam", "--lr", "0.1")[0].optimiser.lr == 0.1
    assert settled("--optimiser", "adam", "--recipe", "short")[0].optimiser.output_lr == 1.0


def test_without_the_package_it_says_so_and_goes_on(example, monkeypatch, capsys, tmp_path):
    def missing(name):
        return None if name == "elpv_dataset" else find_spec(name)

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    assert example.main(["--batch", "5000", "--out", str(tmp_path)]) == 2       # larger than the procedural set, too
    printed = capsys.readouterr()
    assert "pip install 'minicnn[example]'" in printed.out and "!!!!" in printed.out
    assert "a batch of 5000 is larger than synthetic train" in printed.err
    assert example.main(["--data", "elpv"]) == 2                                # asked for by name: no replacement
    assert "pip install 'minicnn[example]'" in capsys.readouterr().err and os.listdir(tmp_path) == []


def test_only_rank_0_says_so(example, monkeypatch, capsys):
    """Of the processes that mpiexec has started."""
    def only_synthetic(data, **how):
        if data == "elpv":
            raise MissingPackageError
        return data

    for rank, lines in (("0", 4), ("1", 0), (None, 4)):
        with monkeypatch.context() as patch:
            patch.setattr("minicnn.experiment.prepare.open_data", only_synthetic)
            for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK"):
                patch.delenv(name, raising=False)
            if rank:
                patch.setenv("PMI_RANK", rank)
            assert open_sets(settle(example.parse([])), may_fall_back=True) == "synthetic"
        assert capsys.readouterr().out.count("\n") == lines


def test_the_packaged_images_get_the_quick_recipe(example, tmp_path, capsys, monkeypatch):
    """Nothing is printed twice: of what differs from the paper's, only the paper's values."""
    monkeypatch.setattr(Trainer, "fit", lambda trainer, epochs: Outcome(True, 0, None, tmp_path))
    assert example.main(["--data", "synthetic", "--out", str(tmp_path)]) == 130
    said = " ".join(capsys.readouterr().out.split())
    assert ("recipe quick: 6 epochs, batch 32, SGD with momentum 0.9, learning rate 0.006 (times 0.3 in fc6 fc7 fc8), "
            "weight decay 0.0005, cosine over 6 epochs, initial weights fitted to the images differences paper has "
            "epochs 90, batch 128, learning rate 0.01, learning rate schedule plateau, times 0.1 after 3 epochs "
            "without improvement, 3 times at most; here: no colour shift; no two GPUs, the same arithmetic run") in said
    assert example.main(["--data", "synthetic", "--recipe", "long", "--out", str(tmp_path)]) == 130
    assert "recipe long: 26 epochs" in " ".join(capsys.readouterr().out.split())


def test_help_is_grouped(example, capsys):
    with pytest.raises(SystemExit) as leaving:
        example.main(["--help"])
    text = capsys.readouterr().out
    assert leaving.value.code == 0 and all(part in text for part in ("what is trained:", "how:", "runs:", "Ctrl-C"))
    assert max(map(len, text.splitlines())) <= 120


def test_settings_come_from_the_run_unless_given(example, place):
    last = place / "runs/small/last.safetensors"
    settings = settle(example.parse(["--resume", "--lr", "0.5"]), last)
    assert settings["batch"] == 8 and settings["lr"] == 0.5 and settings["data"] == str(place / "photos")
    fresh = settle(example.parse(["--seed", "3"]))
    assert fresh == {**DEFAULTS, "model": "alexnet", "variant": "paper", "seed": 3, "recipe": "quick", "epochs": 6,
                     "batch": 32, "lr": 0.006}


def test_a_changed_knob_is_named(place):
    trainer = small_trainer(place / "runs/small", recipe=dataclasses.replace(small_recipe(), net={"model": "other"}))
    with pytest.raises(ValueError, match="net.model = small, this one has other"):
        trainer.resume()
