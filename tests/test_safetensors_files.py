"""Safetensors files: their bytes are the library's, wrong ones are rejected, and writing copies nothing."""

import errno
import json
import os
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from minicnn.errors import CheckpointError, ConfigError
from minicnn.system import files
from minicnn.system.files import read_safetensors, write_safetensors


def arrays() -> dict:
    """Every dtype, and all kinds of shapes and memory layouts."""
    rng = np.random.default_rng(0)
    found = {f"{kind}.{k}": rng.integers(0, 100, shape).astype(kind)
             for kind in files.DTYPES for k, shape in enumerate([(), (5,), (2, 3)])}
    return found | {"empty": np.zeros((0, 3)), "velocity/한글 \"'\\\n\x7f": np.float32([np.nan, -0.0, 1e-45]),
                    "transposed": rng.normal(size=(3, 4)).T, "every second": np.arange(10, dtype=np.int32)[::2]}


def same(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.mark.parametrize("metadata", [{}, {"minicnn": '{"이름": "\\u0007"}'}])
def test_the_bytes_are_the_librarys(tmp_path, metadata):
    write_safetensors(tmp_path / "ours", arrays(), metadata, checksums=False)
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays().items()}
    assert (tmp_path / "ours").read_bytes() == safetensors.numpy.save(contiguous, metadata or None)


def test_the_library_reads_ours_and_we_read_the_librarys(tmp_path):
    metadata = {"format": "minicnn", "epoch": "3", "net": "작은"}
    write_safetensors(tmp_path / "ours", arrays(), metadata)
    assert same(safetensors.numpy.load_file(tmp_path / "ours"), arrays())
    with safe_open(tmp_path / "ours", "numpy") as file:
        assert file.metadata() == metadata | {"crc32": file.metadata()["crc32"]}
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays().items()}
    safetensors.numpy.save_file(contiguous, tmp_path / "theirs", metadata)
    for path in (tmp_path / "ours", tmp_path / "theirs"):
        tensors, found = read_safetensors(path)
        assert same(tensors, arrays()) and found == metadata
    write_safetensors(tmp_path / "none", {}, {})
    assert read_safetensors(tmp_path / "none") == ({}, {})


def test_big_endian_arrays_are_turned(tmp_path):
    write_safetensors(tmp_path / "a", {"x": np.arange(3, dtype=">f4"), "n": np.array(7, ">i8")}, {})
    assert same(read_safetensors(tmp_path / "a")[0], {"n": np.array(7), "x": np.arange(3, dtype=np.float32)})


def test_only_the_names_asked_for(tmp_path):
    write_safetensors(tmp_path / "a", arrays(), {"k": "v"})
    tensors, metadata = read_safetensors(tmp_path / "a", lambda name: name.startswith("int8"))
    assert sorted(tensors) == ["int8.0", "int8.1", "int8.2"] and metadata == {"k": "v"}


def test_types_that_a_file_cannot_hold_are_rejected_before_it_is_made(tmp_path):
    with pytest.raises(CheckpointError, match="'x' is an array of complex128, which .* expected one of uint64, int64"):
        write_safetensors(tmp_path / "a", {"x": np.zeros(2, complex)}, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("metadata", [{"epoch": 3}, {"epoch": None}, {"note": b"x"}, {3: "epoch"}])
def test_metadata_that_are_not_strings_are_rejected_before_the_file_is_made(tmp_path, metadata):
    with pytest.raises(ConfigError, match=r"metadata ('epoch'|'note'|3): .* cannot be saved; expected strings"):
        write_safetensors(tmp_path / "a", {"x": np.zeros(2)}, metadata)
    assert os.listdir(tmp_path) == []


def test_types_that_numpy_does_not_have_are_named(tmp_path):
    """Such files come from elsewhere; what is not asked for may be of any type."""
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
                         "y": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}).encode()
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match="a: 'x' is an array of BF16, which .* expected one of U64, .*to F32"):
        read_safetensors(tmp_path / "a")
    assert read_safetensors(tmp_path / "a", lambda name: name == "y")[0] == {"y": 0}


def test_writing_does_not_copy_the_arrays(tmp_path):
    """Sixteen arrays of 1 MB; one that is not contiguous is copied, one at a time."""
    tensors = {str(k): np.ones((512, 512), np.float32) for k in range(12)}
    tensors |= {f"t{k}": np.ones((512, 512), np.float32).T for k in range(2)}
    tensors |= {f"big{k}": np.ones((512, 512), ">f4") for k in range(2)}
    tracemalloc.start()
    try:
        write_safetensors(tmp_path / "a", tensors, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size > 16 * 2**20 and peak < 1.5 * 2**20


def test_a_full_disk_leaves_the_old_tensors(tmp_path, monkeypatch):
    write_safetensors(tmp_path / "a", arrays(), {})
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(tmp_path / "a", {"x": np.zeros(3)}, {})
    assert same(read_safetensors(tmp_path / "a")[0], arrays()) and os.listdir(tmp_path) == ["a"]


def test_files_that_cannot_be_read(tmp_path):
    write_safetensors(tmp_path / "a", arrays(), {"k": "v"})
    whole = (tmp_path / "a").read_bytes()
    for length in [0, 1, 7, 8, 9, 100, *range(200, len(whole), 97), len(whole) - 1]:
        (tmp_path / "short").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="short: (the file is empty|cut short or damaged)"):
            read_safetensors(tmp_path / "short")
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(CheckpointError, match="no such checkpoint; expected a .safetensors file"):
            read_safetensors(path)
    (tmp_path / "text").write_text("this is not a safetensors file at all")
    with pytest.raises(CheckpointError, match=r"text: cut short or damaged, 37 bytes do not make a safetensors"):
        read_safetensors(tmp_path / "text")


def checked(folder) -> bytes:
    write_safetensors(folder / "a", {"x": np.arange(6, dtype="f4").reshape(2, 3), "y/z": np.zeros(0), "ü": np.ones(1)},
                      {"minicnn": json.dumps({"epoch": 3, "crc32": "crc32 00"})})
    return (folder / "a").read_bytes()


def test_damage_is_noticed_wherever_it_is(tmp_path):
    data = checked(tmp_path)
    whole = read_safetensors(tmp_path / "a")
    assert files.has_checksums(tmp_path / "a") and whole[1].keys() == {"minicnn"}
    for at in range(0, len(data), 2):
        (tmp_path / "a").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        with pytest.raises(CheckpointError, match="^/.*/a: .*(damaged|use another|no such)"):
            read_safetensors(tmp_path / "a")
    (tmp_path / "a").write_bytes(data)
    assert same(read_safetensors(tmp_path / "a")[0], whole[0])


def test_the_damaged_array_is_named_and_others_can_be_read(tmp_path):
    data = checked(tmp_path)
    (tmp_path / "a").write_bytes(data[:-1] + b"!")
    with pytest.raises(CheckpointError, match="damaged: the array 'x' has changed since it was written .checksum."):
        read_safetensors(tmp_path / "a")
    assert read_safetensors(tmp_path / "a", lambda name: name == "ü")[0]["ü"] == 1


def test_files_without_checksums_can_be_read(tmp_path):
    write_safetensors(tmp_path / "a", arrays(), {"format": "minicnn"}, checksums=False)
    assert not files.has_checksums(tmp_path / "a") and same(read_safetensors(tmp_path / "a")[0], arrays())
