import os

import numpy as np
import pytest

from minicnn.data.dataset import Dataset
from minicnn.data.source import open_data
from minicnn.data.statistics import kept_statistics, measure, principal_components
from minicnn.errors import DataError
from minicnn.system.files import read_safetensors, write_safetensors
from tests.helpers.trees import in_memory, tree


def random_set(count=23, size=12):
    """Images with correlated colours, and their plain stack."""
    rng = np.random.default_rng(1)
    base = rng.integers(0, 200, (count, size, size, 1))
    stack = (base + rng.integers(0, 56, (count, size, size, 3)) * np.array([1.0, 0.5, 0.1])).astype(np.uint8)
    labels = np.arange(count) % 2
    return stack, Dataset("random", ["a", "b"], labels, range(count), stack.__getitem__, size=(size, size))


def test_mean_and_principal_components_against_numpy():
    stack, dataset = random_set()
    found = measure(dataset, progress=False)
    assert found.mean.shape == (12, 12, 3) and found.mean.dtype == np.float32 and found.count == 23
    np.testing.assert_allclose(found.mean, stack.mean(axis=0), rtol=1e-6)
    covariance = np.cov(stack.reshape(-1, 3).T / 255.0, bias=True)
    eigenvalues, eigenvectors = found.pca
    assert (np.diff(eigenvalues) <= 0).all()
    np.testing.assert_allclose(eigenvectors @ np.diag(eigenvalues) @ eigenvectors.T, covariance, rtol=1e-9, atol=1e-12)
    assert (eigenvectors.sum(axis=0) > 0).all()


def test_same_bits_with_any_number_of_threads():
    results = [measure(random_set()[1], progress=False, workers=workers) for workers in (1, 3)]
    np.testing.assert_array_equal(results[0].mean, results[1].mean)
    np.testing.assert_array_equal(results[0].eigenvectors, results[1].eigenvectors)


def test_grey_images_have_one_component():
    eigenvalues, eigenvectors = measure(in_memory(50), progress=False).pca
    np.testing.assert_allclose(eigenvectors[:, 0], np.full(3, 3**-0.5), rtol=1e-9)
    np.testing.assert_allclose(eigenvalues[0], 3 * np.var(np.arange(50) / 255), rtol=1e-9)
    assert (eigenvalues >= 0).all() and eigenvalues[1] < 1e-12                # so that their roots exist


def test_unreadable_images_do_not_count(tmp_path):
    found = measure(in_memory(6, bad={5}), progress=False)
    assert found.count == 5
    np.testing.assert_allclose(found.mean, 2.0)


def test_principal_components_of_known_pixels():
    pixels = np.array([[0, 0, 0], [255, 255, 255]])
    eigenvalues, eigenvectors = principal_components(pixels.sum(axis=0), pixels.T @ pixels, 2)
    np.testing.assert_allclose(eigenvalues, [0.75, 0, 0], atol=1e-12)
    np.testing.assert_allclose(eigenvectors[:, 0], 3**-0.5)


def test_kept_in_a_file(tmp_path):
    path, calls = tmp_path / "statistics.safetensors", []
    first = measure(in_memory(9, bad={4}, calls=calls), path, progress=False)
    assert len(calls) == 9 and os.listdir(tmp_path) == ["statistics.safetensors"]
    again = in_memory(9, bad={4}, calls=calls)
    found = measure(again, path, progress=False)
    assert len(calls) == 9                                                    # nothing was decoded again
    assert again.skipped == [("4", "torn")] and len(again) == 8
    for name in ("mean", "eigenvalues", "eigenvectors"):
        np.testing.assert_array_equal(getattr(found, name), getattr(first, name))
    assert found.count == first.count == 8
    assert measure(in_memory(12), path, progress=False).count == 12           # another set's: measured anew


def test_kept_for_these_very_files(tmp_path, monkeypatch):
    """Another size, modification time or name of one file, and the kept statistics are not used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree(tmp_path / "set", {"a": 8, "b": 8})

    def kept():
        return kept_statistics(open_data(tmp_path / "set", size=16).train)

    first = kept()
    assert first.parent == tmp_path / "cache" / "minicnn" and kept() == first
    train = open_data(tmp_path / "set", size=16).train
    path = tmp_path / "set" / train.path(0)
    os.utime(path, (1, 1))
    second = kept()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, (1, 1))
    third = kept()
    path.unlink()
    assert len({first, second, third, kept_statistics(train)}) == 4
    assert kept_statistics(in_memory(5)) == kept_statistics(in_memory(5)) != kept_statistics(in_memory(6))


def test_a_file_that_is_something_else(tmp_path):
    path = tmp_path / "statistics.safetensors"
    path.write_bytes(b"cut short")
    with pytest.raises(DataError, match="cannot read the statistics in .*statistics.safetensors.*delete the file"):
        measure(in_memory(3), path, progress=False)


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "statistics.safetensors"
    measure(in_memory(3), path, progress=False)
    data = path.read_bytes()
    for at in (300, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        with pytest.raises(DataError, match="cannot read the statistics in .*; delete the file"):
            measure(in_memory(3), path, progress=False)


@pytest.mark.parametrize(("notes", "arrays"), [
    ({"left_out": "[]"}, {}), ({"left_out": "{"}, {}), ({"left_out": '{"9": "x"}'}, {}), ({"count": "x"}, {}),
    ({"format": "other"}, {}), ({}, {"mean": np.zeros(3)}), ({}, {"eigenvalues": np.zeros(4)})])
def test_wrong_contents_without_checksums_are_named(tmp_path, notes, arrays):
    path = tmp_path / "statistics.safetensors"
    measure(in_memory(3), path, progress=False)
    tensors, metadata = read_safetensors(path)
    write_safetensors(path, tensors | arrays, metadata | notes, checksums=False)
    with pytest.raises(DataError, match="cannot read the statistics in .*; delete the file"):
        measure(in_memory(3), path, progress=False)


def test_progress_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("minicnn.system.progress.is_terminal", lambda: True)
    tree(tmp_path, {"a": 8, "b": 8})
    measure(open_data(tmp_path, size=16).train)
    assert "mean image of" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to(tmp_path):
    with pytest.raises(DataError, match="s.safetensors: cannot be written: No such file.*another folder with XDG_"):
        measure(in_memory(3), tmp_path / "gone" / "s.safetensors", progress=False)
