"""What the page asks of a trained network, as plain data and pictures. All of it runs in one thread; see worker.py."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from minicnn import pretrained
from minicnn.data.dataset import Dataset, ImageError
from minicnn.data.images import begins_an_image, central_square
from minicnn.data.input import InputPipeline
from minicnn.errors import ConfigError, plural, printable
from minicnn.evaluate.predict import check_finite
from minicnn.experiment.look import RULES
from minicnn.explore.overview import overview
from minicnn.explore.pictures import png, scale_words, sheet
from minicnn.explore.strongest import Strongest
from minicnn.graph import Net
from minicnn.visualize.gradients import last_map
from minicnn.visualize.occlusion import answers, covered
from minicnn.visualize.panels import on_grey
from minicnn.visualize.projection import project
from minicnn.visualize.units import check_unit, output_shape
from minicnn.visualize.views import in_memory, in_pixels, mean_words, photographs, views

GUESSES, SAMPLES, KEPT = 5, 8, 32           # classes listed; sample images; photographs kept in memory
THUMB = 112                                 # pixels: side of a sample image on the page


@dataclass(frozen=True)
class Photo:
    """pixels: uint8 (H, W, 3), what the network takes of it.   x: the same as its input.   probabilities: (K,)."""

    name: str
    pixels: np.ndarray
    x: np.ndarray
    probabilities: np.ndarray
    truth: str | None


class Session:
    """A trained network, the images that samples and top patches are from, and the photographs of this session.

    held_out: None where the run's images are gone; `why` says so in a line.
    """

    def __init__(self, net: Net, pipeline: InputPipeline, classes: Sequence[str], title: str = "",
                 held_out: Dataset | None = None, why: str = ""):
        if pipeline.preprocess.size is None:
            raise ConfigError("the size to which photographs are resized is not known; give Preprocess.size")
        self.net, self.pipeline, self.classes, self.title = net, pipeline, list(classes), title
        self.layer, self._blocks = last_map(net), overview(net)
        self._photos: OrderedDict[str, Photo] = OrderedDict()
        self._drawn, self._why, self._held_out = held_out is None, why, held_out
        self._samples = photographs(pipeline, pretrained.sample_files()) if held_out is None else _spread(held_out)
        self._strongest: dict[str, Strongest] = {}

    # ---- what there is
    def about(self) -> dict:
        """The network's blocks and layers, and what can be chosen."""
        layers = {name: {"shape": output_shape(self.net, name), "kind": type(self.net[name]).__name__}
                  for block in self._blocks for name in block.layers}
        return {"title": self.title, "classes": len(self.classes), "side": self.net.input_shape[0],
                "parameters": self.net.num_params, "blocks": [asdict(block) for block in self._blocks],
                "layers": layers, "layer": self._usual_layer(), "rules": list(RULES), "fill": mean_words(self.pipeline),
                "samples": self._thumbnails(), "drawn": self._drawn, "images": len(self._held_out or ()),
                "why": self._why}

    def _thumbnails(self) -> list[dict]:
        """Of the sample images that can be read."""
        found = []
        for number in range(len(self._samples)):
            with suppress(ImageError):
                image = Image.fromarray(central_square(self._samples.read(number))).resize((THUMB, THUMB))
                found.append({"number": number, "name": self._name(number), "picture": png(np.asarray(image))})
        return found

    def _name(self, number: int) -> str:
        if self._drawn:
            return f"Sample {Path(self._samples.path(number)).stem}"
        return f"Held-out image {printable(self._samples.path(number), ('Cc', 'Cs'))}"

    def _usual_layer(self) -> str:
        """The last layer with rows and columns, and more than one of each."""
        names = [name for block in self._blocks for name in block.layers]
        wide = [name for name in names if min(output_shape(self.net, name)[:-1], default=1) > 1]
        return wide[-1] if wide else self.layer

    # ---- photographs
    def sample(self, number: int) -> dict:
        """One of the sample images as the photograph."""
        if not 0 <= number < len(self._samples):
            raise ConfigError(f"there is no sample image {number}; expected 0 to {len(self._samples) - 1}")
        truth = None if self._drawn else self._samples.classes[self._samples.labels[number]]
        return self._take(self._name(number), self._samples.select([number]), truth)

    def upload(self, data: bytes, name: str) -> dict:
        """A file as the photograph. ImageError unless its bytes are an image of a common format."""
        name = printable(name, ("Cc", "Cs"))[:80] or "photograph"
        if not begins_an_image(data[:12]):
            raise ImageError(name, "it does not begin as a JPEG, PNG, GIF, BMP, TIFF or WebP file does")
        return self._take(name, in_memory(self.pipeline, data, name))

    def _take(self, name: str, dataset: Dataset, truth: str | None = None) -> dict:
        pixels, x = views(self.pipeline, dataset)
        photo = Photo(name, pixels[0], x[0], self._probabilities(x, name), truth)
        key = hashlib.sha256(name.encode() + photo.pixels.tobytes()).hexdigest()[:16]
        self._photos[key] = photo
        self._photos.move_to_end(key)
        while len(self._photos) > KEPT:
            self._photos.popitem(last=False)
        return {"photo": key, "name": name, "truth": truth, "picture": png(photo.pixels),
                "guesses": self._guesses(photo.probabilities, _best(photo.probabilities))}

    def _probabilities(self, x: np.ndarray, name: str) -> np.ndarray:
        """(K,) for one input (1, H, W, C)."""
        found = answers(self.net, x, self.layer)[1][0]
        check_finite(found, "the network's outputs", f" for this photograph, {name}")
        return found

    def _photo(self, key: str) -> Photo:
        if key not in self._photos:
            raise ConfigError("this photograph is not in memory any more; choose it again")
        self._photos.move_to_end(key)
        return self._photos[key]

    def _guesses(self, probabilities: np.ndarray, labels: Sequence[int]) -> list[dict]:
        return [{"label": int(k), "name": self.classes[k], "probability": float(probabilities[k])} for k in labels]

    # ---- what the network makes of one
    def maps(self, photo: str, layer: str) -> dict:
        """All maps, or units, of a layer: one picture of them, and of each its largest activation and where it is."""
        x = self._photo(photo).x
        shape = check_unit(self.net, layer, None)
        outputs = answers(self.net, x[None], layer)[0][0]                                   # (H, W, C) or (C,)
        check_finite(outputs, f"the outputs of layer {layer!r}", " for this photograph")
        maps = outputs.reshape(*(shape[:2] if len(shape) == 3 else (1, 1)), shape[-1])
        flat = maps.reshape(-1, shape[-1])
        best, columns = flat.argmax(axis=0), int(np.ceil(shape[-1] ** 0.5))
        peaks = flat.max(axis=0)
        what = plural(shape[-1], "unit")
        if len(shape) == 3:
            what = f"{plural(shape[-1], 'map')} of {shape[0]} x {shape[1]}, {scale_words(maps)}"
        return {"layer": layer, "shape": shape, "columns": columns, "peaks": [_short(value) for value in peaks],
                "places": np.stack(np.divmod(best, maps.shape[1]), axis=1).tolist(),
                "order": np.argsort(-peaks, kind="stable").tolist(),
                "names": self.classes if layer == self.net.output and len(self.classes) == shape[-1] else None,
                "picture": sheet(maps, columns) if len(shape) == 3 else None,
                "caption": f"Output of {layer} for this photograph: {what}."}

    def projection(self, photo: str, layer: str, unit: int, row: int, column: int, rule: str) -> dict:
        """One activation projected to the pixels, and its receptive field."""
        if rule not in RULES:
            raise ConfigError(f"there is no rule {rule!r}; expected one of {', '.join(RULES)}")
        inside = len(check_unit(self.net, layer, unit)) == 3
        found = project(self.net, self._photo(photo).x[None], layer, unit, (row, column) if inside else None,
                        rule=RULES[rule])
        return {"rule": rule, "box": found.boxes[0], "value": _short(found.values[0]), "empty": not found.pixels.any(),
                "picture": png(on_grey(in_pixels(self.pipeline, found.pixels[0]))),
                "caption": found.captions[0] + " 0 is grey; the 99.9th percentile of the absolute values has full "
                                               "contrast."}

    def occluded(self, photo: str, top: int, left: int, square: int) -> dict:
        """The probabilities where a square covers part of the photograph."""
        chosen = self._photo(photo)
        side = chosen.x.shape[0]
        if not 1 <= square <= side or not (0 <= top <= side - square and 0 <= left <= side - square):
            raise ConfigError(f"a square of {square} pixels at row {top}, column {left} does not lie within the "
                              f"{side} x {side} pixels that the network takes")
        probabilities = self._probabilities(covered(chosen.x, [(top, left)], square), chosen.name)
        labels = list(dict.fromkeys([*_best(chosen.probabilities), int(probabilities.argmax())]))
        return {"guesses": self._guesses(probabilities, labels)}

    def strongest(self, layer: str, unit: int, rule: str, until: int) -> dict:
        """The top patches of a unit: after `until` images of the set, or how many have been seen so far."""
        if rule not in RULES:
            raise ConfigError(f"there is no rule {rule!r}; expected one of {', '.join(RULES)}")
        check_unit(self.net, layer, unit)
        if self._held_out is None:
            raise ConfigError(f"top patches are of the run's images, which cannot be opened: {self._why}")
        if layer not in self._strongest:
            self._strongest[layer] = Strongest(self.net, self.pipeline, self._held_out, layer)
        return self._strongest[layer].advance(unit, RULES[rule], until)


def _best(probabilities: np.ndarray) -> list[int]:
    return np.argsort(-probabilities, kind="stable")[:GUESSES].tolist()


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _spread(dataset: Dataset) -> Dataset:
    """A few images of the set, of each class in turn."""
    order = np.random.default_rng(0).permutation(len(dataset))
    turn = np.zeros(len(order), int)
    for label in np.unique(dataset.labels):
        own = dataset.labels[order] == label
        turn[own] = np.arange(own.sum())
    return dataset.select(order[np.argsort(turn, kind="stable")][:SAMPLES])
