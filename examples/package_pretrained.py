"""Makes minicnn/pretrained/ from a run of examples/cifar10_descendants.py: the weights, and the page about them.

    python examples/cifar10_descendants.py DIR long --note "..."
    python examples/package_pretrained.py runs/airbench94-seed0-1

The weights are those of the last epoch, which no test image has chosen; of a checkpoint they keep what predicting and
fine-tuning need. The page says what was measured when the run ended: it is read from the run's test.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from minicnn import pretrained
from minicnn.data.loader import Batch
from minicnn.data.procedural import draw_image
from minicnn.errors import ConfigError
from minicnn.evaluate.predict import predict
from minicnn.experiment.say import exit_code
from minicnn.experiment.trained import load_trained
from minicnn.models.registry import MODELS
from minicnn.system.files import unsigned, write_text
from minicnn.train.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from minicnn.train.runs.run_dir import LAST, TEST

# What a checkpoint says of a training that could go on, and is of no use without the optimiser's arrays.
POSITION = {"step": 0, "best": None, "schedule": {}, "loss_scale": None, "optimiser": {}, "average": None,
            "metrics_bytes": 0, "metrics_crc32": None, "tally": {}}
WHERE = {"data": None, "device": "auto", "threads": None}           # of the settings: what is true of one machine only
EXPECTED = (0, 3)                       # numbers of the drawn images whose scores the file holds: stripes, dots
PAGE = """# The network of this package

Written by `python examples/package_pretrained.py RUN`; do not edit. Wherever a run is named, `pretrained` is this
network:

```
minicnn look pretrained --what gradcam       # where it sees the class; occlusion, deconv, top, ...
minicnn predict pretrained photo.jpg
minicnn explore pretrained           # the same by clicking; pip install 'minicnn[web]'
minicnn train {model} --data DIR --init-from pretrained --new-head
```

It takes photographs of any size and reduces them to {side} x {side} pixels. It knows {count} classes and no others:
{classes}. Whatever it is shown, it chooses among them.

| | |
|---|---|
| network | `{model}`, {parameters:,} parameters; `minicnn summary {model}` |
| file | `{file}`, {bytes:,} bytes; weights in {weights} |
| training images | CIFAR-10, {images} |
| recipe | `{recipe}`: {epochs} epochs, batch {batch:,}, seed {seed} |
| weights | of the last epoch; test images have chosen nothing |
| training | {seconds:,} seconds on {machine} |
{tests}
| training accuracy | {training:.2f} % (10,000 training images, without augmentation) |
| published error | {published}, by its published recipe, on the original pixels |

{note}

Made by:

```
{command}
python examples/package_pretrained.py RUN
```

## Licences

The weights are under this project's licence (MIT). They were learned from CIFAR-10, collected by Alex Krizhevsky, Vinod
Nair and Geoffrey Hinton ([Learning multiple layers of features from tiny
images](https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf), 2009), which is published without a licence
text; its photographs are from the web, belong to their authors, and are not part of this package.

## The sample images

The images in `samples/` are drawn by `python -m minicnn.pretrained.scenes`. They are no photographs, and were never
used in training. What the network predicts for them:

| image | most probable class | probability |
|---|---|---|
{guesses}
"""


def package(run: Path, file: Path = pretrained.CHECKPOINT) -> None:
    """Write the weights of a run to `file`, and README.md beside it. MinicnnError for a run that has not ended."""
    saved, report = load_checkpoint(run / LAST), report_of(run)
    if report["net"] != saved.meta["about"]["model"] or report["epochs"] != saved.meta["epoch"]:
        raise ConfigError(f"{run / TEST} is of {report['net']} after {report['epochs']} epochs, {run / LAST} of "
                          f"{saved.meta['about']['model']} after {saved.meta['epoch']}; let the run end")
    kept = {"test_error": report["test"], "training_error": report["training"],
            **{name: report[name] for name in ("weights", "seconds", "machine", "note", "command")}}
    params, state = split(saved, report["weights"])
    kept["expected"] = expected(run / LAST, params)
    meta = {**saved.meta, **POSITION, "about": {**saved.meta["about"], **WHERE}, "pretrained": kept}
    save_checkpoint(file, params, {}, {}, {name: meta[name] for name in meta if name != "format"},
                    state=state)
    write_text(file.with_name("README.md"), page(file))


def report_of(run: Path) -> dict:
    """What the run wrote when it had ended. ConfigError where it has not."""
    try:
        return unsigned(json.loads((run / TEST).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{run / TEST} cannot be read ({error}); expected the folder of a run of "
                          "examples/cifar10_descendants.py that has ended") from error


def split(saved: Checkpoint, weights: str) -> tuple[dict, dict]:
    """Parameters, the weights among them in the precision they were tested in, and state, to predict with."""
    arrays = saved.averaged()
    return ({name: arrays[name].astype(weights if arrays[name].ndim > 1 else "float32") for name in saved.params},
            {name: arrays[f"state/{name}"] for name in saved.state})


def expected(checkpoint: Path, params: dict) -> list[list[float]]:
    """The scores of two drawn images, of the reference in float64: whatever reads the file must arrive at them."""
    net, pipeline, _ = load_trained(checkpoint, "reference")
    net.load_arrays({**net.arrays(), **params})
    x = pipeline.evaluation(Batch(np.stack([draw_image(0, 32, number) for number in EXPECTED]), labels=None,
                                  sample_ids=None, indices=None))
    return net.copy(dtype="float64")(x.astype(np.float64)).round(5).tolist()


def page(file: Path) -> str:
    """The page about a packaged network, from its file alone."""
    net, pipeline, meta = load_trained(file, "reference")
    about, kept = meta["about"], meta["pretrained"]
    samples = predict(net, pipeline, meta["classes"], pretrained.sample_files(), top=1)
    guesses = "\n".join(f"| ![]({pretrained.SAMPLES.name}/{Path(path).name}) `{Path(path).name}` | {name} | "
                        f"{100 * probability:.0f} % |" for path, [(name, probability)] in samples)
    tests = "\n".join(f"| test accuracy, {way} | {100 * (1 - error):.2f} % (10,000 images) |"
                      for way, error in kept["test_error"].items())
    return PAGE.format(
        side=pipeline.preprocess.size, count=len(meta["classes"]), classes=", ".join(meta["classes"]),
        model=about["model"], parameters=net.num_params, file=file.name, bytes=file.stat().st_size,
        weights=kept["weights"],
        images=f"{int(meta['identity']['data']['train'].rpartition('(')[2].split()[0]):,} images, all of `train`",
        recipe=about["recipe"], epochs=meta["epoch"], batch=about["batch"], seed=about["seed"],
        seconds=kept["seconds"], machine=kept["machine"], tests=tests, training=100 * (1 - kept["training_error"]),
        published=MODELS[about["model"]].variants[about["variant"]].error, note=kept["note"], command=kept["command"],
        guesses=guesses)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run that has ended")
    options = parser.parse_args(arguments)
    return exit_code(lambda: package(options.run) or 0)


if __name__ == "__main__":
    sys.exit(main())
