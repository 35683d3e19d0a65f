"""The `minicnn` command.

    minicnn gradcheck [what ...]     prove the hand-written gradients against finite differences
    minicnn summary [variant]        the table of an AlexNet: shapes, parameters, multiply-adds, bytes
    minicnn variants                 the AlexNets this package knows, and where each departs from the paper
    minicnn prepare SOURCE OUT       decode photographs once, ImageNet's tars for instance, into shards for training
    minicnn predict CHECKPOINT FILE ...    what a trained net makes of photographs
    minicnn doctor                   versions, threads and devices, for a bug report

Exit code 0: all is well; 1: a gradient is wrong; 2: the command cannot be carried out, with one line that says why.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version

from minicnn.errors import CheckpointError, ConfigError, MinicnnError

LIBRARIES = ("numpy", "numba", "pillow", "matplotlib", "tqdm", "safetensors", "elpv-dataset", "simplejpeg", "torch")


def gradcheck(options: argparse.Namespace) -> int:
    """Check what was asked for, print the tables, and say how many checks failed."""
    from minicnn.backend.select import get_ops
    from minicnn.gradcheck.cases import GROUPS, LAYERS, NETS, names
    from minicnn.gradcheck.check import table_header, table_line

    if options.list:
        for kind, known in ("groups", GROUPS), ("layers", LAYERS), ("models", NETS):
            print(f"{kind}   {', '.join(known)}")
        return 0
    chosen = list(dict.fromkeys(name for what in options.what or ["layers"] for name in names(what)))
    ops = get_ops(options.device)
    start, reports = time.perf_counter(), []
    print(f"Central differences in float64 on the {ops.name} backend.", flush=True)
    for name in chosen:
        for case in LAYERS.get(name, []):
            reports.append(case.run(ops))
            print(reports[-1] if options.verbose or not reports[-1].ok else _brief(reports[-1]), flush=True)
        if name in NETS:
            print(f"{name}: network in float64, weights and images drawn anew\n{table_header()}", flush=True)
            reports.append(NETS[name].run(ops.name, lambda row: print(table_line(row), flush=True)))
            for fault in reports[-1].faults:
                print(f"  FAILED: {fault}")
    failed = sum(not report.ok for report in reports)
    verdict = f"{failed} of {len(reports)} checks FAILED" if failed else f"all {len(reports)} checks passed"
    print(f"{verdict} in {time.perf_counter() - start:.1f} s")
    return 1 if failed else 0


def _brief(report) -> str:
    """One line for a check that passed."""
    elements, skipped = sum(row.checked for row in report.rows), sum(row.skipped for row in report.rows)
    note = f", {skipped} at kinks skipped" if skipped else ""
    return f"ok  {report.title}: {elements} slopes{note}, worst relative error {report.worst.error:.1e}"


def summary(options: argparse.Namespace) -> int:
    """Print net.summary() of an AlexNet."""
    from minicnn.models.alexnet import alexnet

    if options.batch < 1:
        raise ConfigError(f"--batch must be at least 1, got {options.batch}")
    print(alexnet(options.variant, num_classes=options.classes, device=options.device).summary(options.batch))
    return 0


def variants(options: argparse.Namespace) -> int:
    """Print every variant of AlexNet with its differences from the paper."""
    from minicnn.models.alexnet_variants import VARIANTS, differences

    for variant in VARIANTS:
        print(variant)
        print("\n".join(f"    {line}" for line in differences(variant)) or "    as printed; the default")
    print("\nSources are in minicnn/models/alexnet_variants.py; shapes and sizes: minicnn summary VARIANT")
    return 0


def prepare(options: argparse.Namespace) -> int:
    """Decode a set of photographs once, into shards."""
    from minicnn.data.prepare.run import prepare as run

    try:
        run(options.source, options.out, size=options.size, jpeg=options.jpeg, strict=options.strict,
            workers=options.workers, per_shard=options.per_shard, labels=options.labels,
            say=lambda label, text: print(f"{label:13s}{text}", flush=True))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(f"to train:    python examples/alexnet_imagenet.py --data {options.out}")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Print the five most probable classes of each photograph."""
    from minicnn.data.dataset import ImageError
    from minicnn.evaluate.predict import predict as guesses_of
    from minicnn.evaluate.predict import read_words
    from minicnn.train.runs.run_dir import BEST, find_checkpoint, read_settings, restore

    words = read_words(options.words) if options.words else {}
    checkpoint, unread = find_checkpoint(".", options.checkpoint, BEST), 0
    classes = (meta := read_settings(checkpoint))["classes"]
    net = _net_of(meta, checkpoint, options.device)
    pipeline, _ = restore(net, checkpoint, classes)
    for file, guesses in guesses_of(net, pipeline, classes, options.files, ten_crop=options.ten_crop):
        if isinstance(guesses, ImageError):
            print(f"error: {guesses}", file=sys.stderr)
            unread += 1
            continue
        print(file)
        for name, share in guesses:
            print(f"  {100 * share:5.1f} %  {name}{' ' * (name in words)}{words.get(name, '')}")
    return 2 if unread else 0


def _net_of(meta: dict, checkpoint: os.PathLike, device: str):
    """The network that a checkpoint's recipe names, before training."""
    from minicnn import models

    about = dict(meta["recipe"]["net"])
    build = getattr(models, about.pop("model", ""), None)
    if build is None:
        raise CheckpointError(f"{checkpoint}: is of the net {meta['recipe']['net']}, which minicnn.models does not "
                              "have; expected the checkpoint of a run of one of its models")
    return build(device=device, **about)


def doctor(options: argparse.Namespace) -> int:
    """Print one screen about this installation."""
    from minicnn import __version__
    from minicnn.backend.select import get_ops

    print(f"minicnn       {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"processor     {_processor()}")
    for name in LIBRARIES:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        print(f"{name:14s}{found}")
    print(f"reference     {_device('reference')}")
    print(f"cpu           {_device('cpu')}")
    print(f"cuda          {_device('cuda')}")
    print(f"auto          {get_ops('auto').name}: cuda where it works, else cpu")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR"):
        if name in os.environ:
            print(f"{name}={os.environ[name]}")
    return 0


def _processor() -> str:
    """The processor's name and the cores that this process may use."""
    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model or 'unknown'}, {cores} cores for this process"


def _device(name: str) -> str:
    """Whether a backend works here: it is made, and multiplies a small matrix."""
    import numpy as np

    from minicnn.backend.select import get_ops

    try:
        ops = get_ops(name)
        x, w, y = (ops.from_host(np.ones(shape, "float32")) for shape in ((2, 3), (3, 4), (2, 4)))
        ops.linear_forward(x, w, y)
    except MinicnnError as error:
        return str(error)
    if not (ops.to_host(y) == 3).all():
        return "computes wrong results"
    if name == "cuda":
        return f"works as {ops.spec}; {ops.device.describe()}"
    if name == "cpu":
        from minicnn.backend.cpu import thread_report

        return f"works; {thread_report()}"
    return "works (NumPy, slow: the specification)"


def _parser() -> argparse.ArgumentParser:
    def wide(prog: str) -> argparse.HelpFormatter:
        return argparse.HelpFormatter(prog, max_help_position=26, width=100)

    parser = argparse.ArgumentParser("minicnn", description="Convolutional networks written by hand, from AlexNet on.",
                                     epilog="Training is in examples/: python examples/alexnet_imagenet.py --help",
                                     formatter_class=wide)
    commands = parser.add_subparsers(dest="command", required=True, title="commands", metavar="command [options]")

    def command(function, about: str, epilog: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(function.__name__, help=about, description=about, epilog=epilog,
                                  formatter_class=wide)
        sub.set_defaults(run=function)
        return sub

    def device(sub) -> None:
        sub.add_argument("--device", default="reference", help="reference (default), cpu or cuda")

    sub = command(gradcheck, "Check every gradient against central differences in float64.",
                  "Exit code 1 if any gradient is wrong. All layers take some seconds, a model some tens of seconds.")
    sub.add_argument("what", nargs="*", help="layers such as conv or lrn, models such as alexnet, or the groups layers "
                     "(default), models, all; see --list")
    device(sub)
    sub.add_argument("--list", action="store_true", help="print what can be checked, and stop")
    sub.add_argument("-v", "--verbose", action="store_true",
                     help="print the table of every check, not only of failed ones")

    sub = command(summary, "Print the layers of an AlexNet: shapes, parameters, multiply-adds, bytes.")
    sub.add_argument("variant", nargs="?", default="paper", help="see minicnn variants (default: paper)")
    sub.add_argument("--batch", type=int, default=128, metavar="N", help="images in a batch (default: 128)")
    sub.add_argument("--classes", type=int, default=1000, metavar="K", help="classes (default: 1000)")
    sub.add_argument("--device", default="auto", help="reference, cpu, cuda, or auto (default)")

    command(variants, "Print the AlexNets this package knows, and where each departs from the paper.")
    sub = command(prepare, "Decode photographs once, short side to 256 and central square, into shards for training.",
                  "SOURCE: ILSVRC2012_img_train.tar or the folder with it, ILSVRC2012_img_val.tar and the devkit; "
                  "train/CLASS/* and val/CLASS/* (or a flat val/ with a list of labels); CLASS/*; a tar of any of "
                  "these; or WebDataset shards. Stopped at any moment, the same command goes on. Takes 197 kB an "
                  "image: 262 GB for ImageNet; --jpeg takes about a seventh.")
    sub.add_argument("source", metavar="SOURCE", help="a folder or a tar")
    sub.add_argument("out", metavar="OUT", help="a new folder")
    sub.add_argument("--size", type=int, default=256, metavar="N", help="side of the images (default: 256)")
    sub.add_argument("--jpeg", action="store_true", help="keep JPEGs of the images, to be decoded again in training")
    sub.add_argument("--strict", action="store_true", help="fail if an image cannot be read, a class is empty, or "
                     "ILSVRC2012's numbers are not met")
    sub.add_argument("--workers", type=int, metavar="N", help="decoding threads (default: all processors)")
    sub.add_argument("--labels", metavar="PATH", help="the devkit, or the list of classes of a flat val/")
    sub.add_argument("--per-shard", type=int, default=2048, metavar="N", help="images in a shard (default: 2048)")

    sub = command(predict, "Show photographs to a trained net: its five most probable classes, and how sure it is.")
    sub.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint, or a run's folder (then its best one)")
    sub.add_argument("files", metavar="FILE", nargs="+", help="photographs")
    sub.add_argument("--words", metavar="FILE", help="words.json of a prepared ImageNet: what each wnid means")
    sub.add_argument("--ten-crop", action="store_true", help="average over the paper's ten crops")
    sub.add_argument("--device", default="auto", help="reference, cpu, cuda, or auto (default)")

    command(doctor, "Print versions, threads and devices: what a bug report needs.")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except MinicnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
