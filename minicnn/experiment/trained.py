"""A network from its checkpoint: `load_trained`."""

from __future__ import annotations

import os
from pathlib import Path

from minicnn.data.input import InputPipeline
from minicnn.errors import CheckpointError, ConfigError
from minicnn.experiment import own_net
from minicnn.graph import Net
from minicnn.models import registry
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.run_dir import restore


def load_trained(checkpoint: str | os.PathLike, device: str = "auto") -> tuple[Net, InputPipeline, dict]:
    """The network of a checkpoint with its weights, what feeds it images as in training, and the metadata.

    Raises CheckpointError where the file cannot be used, or where what the network is made of is not there any more.
    """
    saved = load_checkpoint(checkpoint, parts=("params",))
    net = _net_of(saved.meta, Path(checkpoint), device, saved.params)
    pipeline, _ = restore(net, checkpoint, saved.meta["classes"])
    return net, pipeline, saved.meta


def _net_of(meta: dict, checkpoint: Path, device: str, values: dict) -> Net:
    """From the network's description; where there is none, as in version 0.1.0, by the name in the recipe."""
    common = {"device": device, "values": values}
    model = meta["about"].get("model", "")
    if meta.get("net") is None:
        return _by_name(meta, checkpoint, common)
    try:
        return Net.from_description(meta["net"], **common)
    except ConfigError as error:                    # a layer that a file of one's own defines
        if not own_net.is_own(model):
            raise CheckpointError(f"{checkpoint}: {error}") from error
        _import_file(model, checkpoint, error)
        return Net.from_description(meta["net"], **common)


def _import_file(model: str, checkpoint: Path, why: ConfigError) -> None:
    path = own_net.split(model)[0]
    if not os.path.isfile(path):
        raise CheckpointError(f"{checkpoint}: {why}; it was defined in {path}, which is gone: put that file "
                              "back") from why
    own_net.load_file(path)


def _by_name(meta: dict, checkpoint: Path, common: dict) -> Net:
    net, model = dict(meta["recipe"]["net"]), meta["about"].get("model", "")
    if own_net.is_own(model):
        return own_net.build(model, num_classes=len(meta["classes"]), **common)
    try:
        return registry.build(net.pop("model", ""), **net, **common)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{checkpoint}: is of the net {meta['recipe']['net']}, which minicnn.models does not "
                              f"have ({error}); expected the checkpoint of a run of one of its models") from error
