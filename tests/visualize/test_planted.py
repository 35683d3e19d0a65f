"""Mistakes that occlusion, the strongest images, class maps and the pictures of features must not survive."""

from __future__ import annotations

import inspect

import pytest

from minicnn.visualize import gradients, occlusion, top
from minicnn.visualize.features import colours, correspondence, invariance, neighbours, randomised
from tests.visualize import test_class_maps, test_features, test_occlusion_and_top
from tests.visualize.planted import notices, plant

TESTS = (test_class_maps, test_features, test_occlusion_and_top)
CHECKS = {
    occlusion: [lambda: test_occlusion_and_top.test_occlusion_is_a_forward_pass_for_each_position(4),
                test_occlusion_and_top.test_occlusion_of_the_strongest_map_and_class_by_default],
    top: [lambda: test_occlusion_and_top.test_the_strongest_images_of_a_stream("relu2"),
          test_occlusion_and_top.test_patches_are_what_the_receptive_field_cuts],
    gradients: [lambda: test_class_maps.test_saliency_is_the_largest_absolute_gradient_of_the_logit("reference"),
                test_class_maps.test_grad_cam_of_global_averages_is_cam,
                test_class_maps.test_grad_cam_weights_maps_by_the_mean_of_their_gradients,
                test_class_maps.test_integrated_gradients_add_up_to_the_difference_of_the_scores],
    invariance: [test_features.check_transformations, test_features.check_invariance],
    correspondence: [test_features.check_correspondence, test_features.check_random_boxes],
    neighbours: [test_features.check_neighbours], colours: [test_features.check_colours],
    randomised: [test_features.check_cascade, test_features.check_sanity]}
MISTAKES = [
    (occlusion, "places = [(top, left) for top in tops for left in lefts]",
     "places = [(top, left) for left in lefts for top in tops]"),                           # transposed
    (occlusion, "slice(top, top + square), slice(left, left + square)", "slice(top, top + square)"),
    (occlusion, "images = np.repeat(x[None], len(places), axis=0)", "images = [x] * len(places)"),     # never uncovered
    (occlusion, "image[where] = cover[where]", "image[where] = 0"),
    (occlusion, "found[:, label]", "found.max(axis=1)"),
    (occlusion, "found.argmax(axis=1)", "found.argmin(axis=1)"),
    (occlusion, "maps[..., unit].sum", "maps[..., unit].max"),
    (occlusion, "done + len(part)\n", "done + len(part) - 1\n"),
    (top, "np.argsort(-values", "np.argsort(values"),
    (top, "outputs.argmax(axis=2)", "abs(outputs).argmax(axis=2)"),
    (top, "best // columns, best % columns", "best % columns, best // columns"),
    (top, "[:, :count]", "[:, :count - 1]"),
    (top, "self.seen + len(x)", "self.seen"),
    (top, "slice(box[0], box[2]), slice(box[1], box[3])", "slice(box[1], box[3]), slice(box[0], box[2])"),
    (top, "dataset.select(top.images[row])", "dataset.select(top.images[row][::-1])"),
    (gradients, "np.abs(gradients).max(axis=-1)", "gradients.max(axis=-1)"),
    (gradients, "np.abs(gradients).max(axis=-1)", "np.abs(gradients).sum(axis=-1)"),
    (gradients, "(step + 0.5)", "step"),
    (gradients, "((x - start) * total / steps)", "(x * total / steps)"),
    (gradients, "gradient.mean(axis=(1, 2), keepdims=True)", "gradient"),
    (gradients, "np.maximum(weighted, 0)", "weighted"),
    (gradients, "chosen[np.arange(len(logits)), labels] = 1", "chosen[...] = 1"),
    (invariance, "down - amount", "down + amount"),
    (invariance, "down / amount, right / amount", "down * amount, right * amount"),
    (invariance, "np.deg2rad(amount)), np.sin(np.deg2rad(amount))", "np.deg2rad(amount)), -np.sin(np.deg2rad(amount))"),
    (invariance, "(1 - found[..., -1:]) * fill", "0"),
    (invariance, "found[layer] - clean[layer]", "found[layer]"),
    (invariance, "chances[:, label]", "chances.max(axis=1)"),
    (correspondence, "clean[layer] - outputs[layer]", "outputs[layer]"),
    (correspondence, "signs[i] != signs[j]", "signs[i] == signs[j]"),
    (correspondence, "image[top:bottom, left:right] = cover[top:bottom, left:right]",
     "image[top:bottom] = cover[top:bottom]"),
    (correspondence, "[elsewhere(box, x.shape[1:3], rng) for box in boxes]", "boxes"),
    (neighbours, "np.linalg.norm(here - one, axis=1)", "np.abs(here - one).sum(axis=1)"),
    (neighbours, "np.argsort(distances", "np.argsort(-distances"),
    (neighbours, "np.concatenate([distances, far], axis=1)", "far"),
    (colours, "weights - weights.mean(axis=2, keepdims=True)", "weights - weights.mean()"),
    (colours, "max(above, 1 - above)", "above"),
    (randomised, "in reversed(depends_on(net, top))", "in depends_on(net, top)"),
    (randomised, "changed = net.copy()", "changed = net"),
    (randomised, "net[name].state[local][...]", "array[...]"),
    (randomised, "np.abs(trained), np.abs(other)", "trained, trained"),
]


@pytest.mark.parametrize(("module", "right", "wrong"), MISTAKES, ids=lambda part: getattr(part, "__name__", part)[-40:])
def test_mistakes_are_noticed(module, right, wrong, monkeypatch):
    text = inspect.getsource(module)
    assert right in text
    plant(monkeypatch, module, text.replace(right, wrong, 1), *TESTS)
    assert notices(*CHECKS[module])


def test_nothing_is_noticed_without_a_mistake(monkeypatch):
    for module, checks in CHECKS.items():
        plant(monkeypatch, module, inspect.getsource(module), *TESTS)
        assert not notices(*checks)
