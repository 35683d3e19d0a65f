"""Where each case in which converters go wrong is tested; and the cases that need more than one format.

    1-3 convolution with groups and four pads; rows of flattened maps   4-6 joined, normalised, channels-last maps
    7-8 LRN, and in disguise    9-10 pooling at the edge, SAME          11-14 Softmax, Dropout, Clip, BatchNormalization
    15-17 halves of channels; old files; what is refused by name        18 writing      19-21 state dicts
    22-23 Caffe, binary and text    24 cuda-convnet                     25 preprocessing    26 damaged files
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from minicnn import interop
from minicnn.cli import main as cli
from minicnn.data.images import load
from minicnn.data.preprocess import Preprocess
from minicnn.evaluate.predict import predict
from minicnn.experiment.imported import save_imported
from minicnn.experiment.trained import load_trained
from minicnn.interop.state_dict import export_state_dict
from minicnn.models.registry import build
from tests.helpers import torch_pickle as tp
from tests.helpers.models import change_model
from tests.helpers.small_run import save_tree

CASES = {
    1: "onnx: convolution_with_groups_and_four_pads", 2: "onnx: rows_of_flattened_maps",
    3: "onnx: rows_of_flattened_maps", 4: "onnx: two_flattened_maps_joined", 5: "onnx: batchnorm_of_flattened_maps",
    6: "onnx: channels_last_input_without_transposes", 7: "onnx: lrn_and_its_even_window",
    8: "onnx: torchs_disguise_of_lrn, what_only_looks_like_lrn_is_refused; with_torch: exporters",
    9: "onnx: average_pooling_at_the_edge, the_table_of_the_ceil_edge", 10: "onnx: same_padding_is_asymmetric",
    11: "onnx: softmax_at_the_end_is_left_out", 12: "onnx: dropout_as_attribute_and_as_input",
    13: "onnx: clip_as_attributes_and_as_inputs", 14: "onnx: batchnorm_and_its_scale",
    15: "onnx: halves_of_the_channels_become_groups", 16: "onnx: old_files_and_shared_weights",
    17: "onnx: what_cannot_be_expressed_is_refused_by_name",
    18: "onnx_write: there_and_back, every_kind_of_layer_is_written, every_model_there_and_back",
    19: "torch_files: every_type_and_view_is_exact, wrappings_and_prefixes_are_left_out_and_said; "
        "with_torch: files_of_torch_save",
    20: "torch_files: every_type_and_view_is_exact",
    21: "torch_files: alexnet_is_known_by_its_names, missing_extra_and_misshapen_are_named_and_nothing_is_changed; "
        "with_torchvision: state_dicts; acceptance: fine_tuning_alexnet_from_its_file",
    22: "caffe: a_network_with_all_that_caffe_is_known_for, a_training_network_without_its_data_layers, "
        "old_layers_have_the_same_weights",
    23: "caffe: text_and_binary_are_one_graph",
    24: "cuda_convnet: literal_and_merged_are_alexnet_of_the_authors, the_order_of_the_inputs_counts, "
        "a_checkpoint_needs_no_cfg",
    25: "acceptance: images_as_the_weights_expect_them",
    26: "../fuzz/fuzz: damaged_files_are_refused_or_read"}


@pytest.mark.parametrize("case", range(1, 27))
def test_each_case_has_its_tests(case):
    for entry in CASES[case].split("; "):
        file, _, names = entry.partition(": ")
        folder, _, stem = file.rpartition("/")
        text = (Path(__file__).parent / folder / f"test_{stem}.py").read_text()
        for name in names.split(", "):
            assert re.search(rf"^def test_{name}\(", text, re.M), name


# ---- several formats and commands at once
@pytest.fixture
def alexnet(tmp_path, monkeypatch):
    """(narrow AlexNet of torchvision, its state dict as alexnet-owt.pth, photographs); 2 x 2 maps before fc6."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    change_model(monkeypatch, "alexnet", kernels=(8, 12, 8, 8, 12), fc=16, input_size=99)
    net = build("alexnet:torchvision", device="reference", seed=5)
    arrays = export_state_dict(net)
    assert [arrays[name].shape for name in ("features.0.weight", "classifier.1.weight", "classifier.6.weight")] == [
        (8, 3, 11, 11), (16, 12 * 2 * 2), (1000, 16)]
    tp.save_zip(tmp_path / "alexnet-owt.pth", {name: tp.tensor(one, str(k)) for k, (name, one) in
                                               enumerate(arrays.items())})
    for part in ("train", "val"):
        save_tree(tmp_path / "photos" / part, 4, size=104)
    return net


def test_fine_tuning_alexnet_from_its_file(alexnet, tmp_path, capsys):
    """A new output layer, frozen ones with the weights of the file; of another variant, an error names what fits."""
    layers = [name for name in alexnet.layers_with_weights if name != "fc8"]
    command = ["--data", str(tmp_path / "photos"), "--init-from", str(tmp_path / "alexnet-owt.pth"), "--new-head",
               "--epochs", "1", "--batch", "4", "--freeze", ",".join(layers), "--out", str(tmp_path / "runs"),
               "--device", "cpu", "--run-name"]
    assert cli.main(["train", "alexnet:torchvision", *command, "tuned"]) == 0
    printed = capsys.readouterr().out
    assert "7 of 8 layers" in printed and "initialised anew: fc8 (a new head)" in " ".join(printed.split())
    tuned, pipeline, _ = load_trained(tmp_path / "runs/tuned/last.safetensors", "cpu")
    assert all(np.array_equal(tuned.params[name].data, param.data) for name, param in alexnet.params.items()
               if not name.startswith("fc8"))
    assert tuned.num_classes == 2 and pipeline.preprocess.mean == (0.485, 0.456, 0.406)
    assert cli.main(["train", "alexnet:caffe", *command, "another"]) == 2
    error = capsys.readouterr().err
    assert "those of alexnet:torchvision with 1,000 classes" in error and len(error.splitlines()) == 1


def test_images_as_the_weights_expect_them(alexnet, tmp_path):
    """BGR in 0..1 minus a mean, divided by standard deviations: beside a first convolution that pads, the same as
    weights that expect RGB in 0..255; and as NumPy has it, from the photograph on."""
    known = Preprocess(size=104, crop=99, order="bgr", range=1, mean=(0.4, 0.45, 0.5), std=(0.2, 0.25, 0.3))
    net = interop.read(tmp_path / "alexnet-owt.pth", model="alexnet:torchvision", device="reference")
    net.source.preprocess, net.source.preprocess_source = known, "a test"
    save_imported(net, tmp_path / "imported.safetensors")
    again, pipeline, meta = load_trained(tmp_path / "imported.safetensors", "reference")
    photograph = str(next((tmp_path / "photos/val").rglob("*.png")))
    (_, found), = predict(again, pipeline, meta["classes"], [photograph], top=1000)
    pixels = load(photograph, 104, resize="short", interpolation="bicubic")[2:101, 2:101]
    expected = net(((pixels[None, ..., ::-1] / 255 - known.mean) / known.std).astype(np.float32))
    shares = np.exp(expected - expected.max()) / np.exp(expected - expected.max()).sum()
    assert np.abs(np.array([share for _, share in sorted(found, key=lambda one: int(one[0]))]) - shares).max() < 1e-6
    turned = net(((pixels[None] / 255 - known.mean) / known.std).astype(np.float32))
    assert np.abs(turned - expected).max() > 1e-3 * np.abs(expected).max()          # RGB is not the same
    w = net.params["conv1.w"].data
    w[...] = w[:, :, ::-1] / (255 * np.array(known.std[::-1], np.float32))[:, None]
    folded = net((pixels[None] - 255 * np.array(known.mean[::-1])).astype(np.float32))
    assert np.abs(folded - expected).max() < 1e-4 * np.abs(expected).max()
