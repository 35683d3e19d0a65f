"""Data and network of a run; nothing is written, so that a mistake in the arguments leaves nothing behind."""

from __future__ import annotations

from minicnn.backend.cpu import set_threads
from minicnn.data.dataset import ASPECT, Splits
from minicnn.data.elpv import MissingPackageError
from minicnn.data.prepared import is_prepared, read_summary, resize_of
from minicnn.data.preprocess import Preprocess
from minicnn.data.source import SIZE, open_data
from minicnn.experiment import own_net
from minicnn.experiment.nets import build_net
from minicnn.experiment.recipe import preprocess_for
from minicnn.experiment.settings import check_numbers, complete
from minicnn.graph import Net
from minicnn.models.registry import MODELS
from minicnn.parallel.launch import speaks
from minicnn.system.cores import available_cores
from minicnn.train.recipes import named_recipe, recipes_of
from minicnn.train.state import is_of


def prepare(settings: dict, may_fall_back: bool = False, local_size: int = 1) -> tuple[Splits, Net]:
    """Open the data and build the network, and note in `settings` what they were.

    A recipe that depends on the number of images is chosen here.
    may_fall_back: procedural images will do where the default set is not installed.   local_size: so many ranks share
    this machine and its threads.
    """
    use_threads(settings, local_size)
    splits = open_sets(settings, may_fall_back)
    net = build_net(settings, len(splits.classes))
    if settings["size"] is None and own_net.is_own(settings["model"]) and not is_prepared(settings["data"]):
        settings["size"] = image_size(net.input_shape[0])
        splits = open_sets(settings)
    assumed = decoding_of(settings)
    settings.update(check_numbers(complete(settings, len(splits.train))))
    if decoding_of(settings) != assumed:      # the recipe, now that it is known, wants images of another kind
        splits = open_sets(settings)
    settings["keep_aspect"] = splits.train.keeps_aspect
    settings["device"] = net.ops.spec           # where it is resumed, "auto" may mean another
    settings["seed"] = net.seed                 # a network of one's own may have one of its own
    return splits, net


def use_threads(settings: dict, local_size: int = 1) -> None:
    """Take the threads that were asked for; noted in the checkpoint, since other threads round otherwise."""
    if settings["threads"] is None:
        settings["threads"] = available_cores()
    set_threads(settings["threads"] if local_size == 1 else max(1, settings["threads"] // local_size))


def open_sets(settings: dict, may_fall_back: bool = False, preprocess: Preprocess | None = None, *,
              divide: bool = True) -> Splits:
    """The data of these settings, resized as the recipe says, or as `preprocess` does; no image is decoded yet."""
    how = decoding_of(settings)
    if preprocess:
        how = {name: getattr(preprocess, name) for name in how}
    try:
        return open_data(settings["data"], **how, divide=divide)
    except MissingPackageError as error:
        if not may_fall_back:
            raise
        bar = "!" * 100
        if speaks():
            print(f"{bar}\n!! {error}\n!! Until then: procedural images, which teach nothing about photographs.\n{bar}")
        settings["data"] = "synthetic"
        return open_data("synthetic", **how)


def sets_for(settings: dict, meta: dict, preprocess: Preprocess) -> tuple[Splits, bool]:
    """The images to try a trained network on, and whether they are those of its run. Of others none was trained on: a
    folder without a split is taken as a whole.

    settings: with the data that was asked for.   meta, preprocess: of the checkpoint.
    """
    splits = open_sets(settings, preprocess=preprocess)
    own = settings["data"] == meta["about"].get("data") or (splits.divided and is_of(splits.train, meta))
    return splits if own or not splits.divided else open_sets(settings, preprocess=preprocess, divide=False), own


def decoding_of(settings: dict) -> dict:
    """How images are resized, as open_data takes it: as was asked for, else as the recipe says, or while it is not
    known, one of the model's.

    A set that was prepared with whole images is used as such by every recipe. size: None for that of a prepared set, or
    the usual one.
    """
    recipe = settings.get("recipe") or next(iter(recipes_of(settings["model"])))
    preprocess, data = preprocess_for(settings, named_recipe(settings["model"], recipe)), settings["data"]
    size, prepared = settings["size"], is_prepared(data)
    if size is None and not prepared:
        wanted = MODELS[settings["model"]].image_size if settings["model"] in MODELS else SIZE
        size = preprocess.size or (None if wanted == SIZE else wanted)
    whole = settings["keep_aspect"] or (prepared and resize_of(read_summary(data)) == ASPECT)
    return {"size": size, "resize": ASPECT if whole else preprocess.resize, "interpolation": preprocess.interpolation}


def image_size(crop: int) -> int:
    """The side of images that leaves crops of this side the room to move that 256 leaves 224."""
    return round(crop * SIZE / 224)
