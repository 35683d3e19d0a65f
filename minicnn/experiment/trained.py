"""A network from its checkpoint: `load_trained`; the one that comes with the package."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from minicnn import pretrained
from minicnn.data.input import InputPipeline
from minicnn.errors import CheckpointError, ConfigError, DeviceError, MinicnnError
from minicnn.experiment import own_net
from minicnn.experiment.settings import about_of
from minicnn.graph import Net
from minicnn.layers.base import Layer
from minicnn.models import registry
from minicnn.train.runs.checkpoint import interpreting, load_checkpoint
from minicnn.train.runs.run_dir import restore


def load_trained(checkpoint: str | os.PathLike, device: str = "auto") -> tuple[Net, InputPipeline, dict]:
    """The network of a checkpoint with its weights, what feeds it images as in training, and the metadata.

    The weights are the averaged ones, where there are any. CheckpointError where the file cannot be used, or where what
    the network is made of is not there any more.
    """
    saved = load_checkpoint(checkpoint, parts=("params", "state", "average"))
    with interpreting(checkpoint):
        net = _net_of(saved.meta, Path(checkpoint), device, saved.averaged())
    meta = saved.meta
    del saved                                   # frees its arrays, which restore reads once more
    pipeline, _ = restore(net, checkpoint, meta["classes"])
    return net, pipeline, meta


def quick_device(checkpoint: Path, device: str) -> str:
    """The device for a few photographs: of the packaged network "reference" unless another is asked for.

    NumPy has predicted its small images before compiled kernels are loaded, or compiled for the first time.
    """
    return "reference" if checkpoint == pretrained.CHECKPOINT and device == "auto" else device


def samples_for(checkpoint: Path) -> list[str]:
    """The images to look at where none is named: of the packaged network its samples, else none."""
    return pretrained.sample_files() if checkpoint == pretrained.CHECKPOINT else []


def _net_of(meta: dict, checkpoint: Path, device: str, values: dict) -> Net:
    """From the network's description; where there is none, as in version 0.1.0, by the name in the recipe."""
    if meta.get("net") is None:
        build = _by_name(meta, checkpoint)
    else:
        _import_own_layers(meta, checkpoint)
        build = partial(Net.from_description, meta["net"])
    try:
        return build(device=device, values=values)
    except DeviceError:
        raise
    except MinicnnError as error:
        raise CheckpointError(f"{checkpoint}: of another network: {error}") from error


def _import_own_layers(meta: dict, checkpoint: Path) -> None:
    """Import the file of one's own, where it defines layers of the network. CheckpointError where it is gone."""
    kinds = {node["kind"] for node in meta["net"]["nodes"] if "kind" in node}
    model = about_of(meta)["model"] or ""
    if not own_net.is_own(model) or all(":" not in kind for kind in kinds):
        return
    path = own_net.split(model)[0]
    if os.path.isfile(path):
        own_net.load_file(path)
    elif not kinds <= set(Layer.KINDS):
        raise CheckpointError(f"{checkpoint}: its net has layers that {path} defined, which is gone; put the file back")


def _by_name(meta: dict, checkpoint: Path) -> Callable[..., Net]:
    """What builds the network that the recipe names."""
    net, model = dict(meta["recipe"]["net"]), about_of(meta)["model"] or ""
    if own_net.is_own(model):
        return partial(own_net.build, model, num_classes=len(meta["classes"]))
    name = net.pop("model", "")
    try:
        registry.find(name, net.get("variant"))
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}: is of the net {meta['recipe']['net']}, which minicnn.models does not "
                              "have; expected the checkpoint of a run of one of its models") from error
    return partial(registry.build, name, **net)
