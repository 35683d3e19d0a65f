import numpy as np
import pytest

from minicnn.data.dataset import Dataset, ImageError
from minicnn.data.scan import scan
from minicnn.errors import DataError
from tests.helpers.trees import in_memory


def test_reads_and_labels():
    album = in_memory(7)
    assert len(album) == 7 and album.image_shape == (6, 6, 3)
    np.testing.assert_array_equal(album.labels, [0, 1, 2, 0, 1, 2, 0])
    assert album.labels.dtype == np.int32 and album.ids.dtype == np.uint32
    assert album.read(5)[0, 0, 0] == 5


def test_lengths_must_agree():
    with pytest.raises(DataError, match="equally many"):
        Dataset("short", ["a"], [0, 0], ["x"], None, size=(1, 1))


def test_images_of_another_size_are_refused():
    album = Dataset("odd", ["a"], [0], ["x"], lambda item: np.zeros((3, 3, 3), np.uint8), size=(4, 4))
    with pytest.raises(ImageError, match=r"\(3, 3, 3\), expected uint8 \(4, 4, 3\)"):
        album.read(0)


def test_scan_leaves_out_counts_and_names():
    album = in_memory(10, bad={2, 7})
    fingerprint = album.fingerprint
    assert album.report_skipped() == ""
    skipped = scan(album, progress=False)
    assert skipped == album.skipped == [("2", "torn"), ("7", "torn")]
    assert len(album) == 8
    np.testing.assert_array_equal(album.ids, [0, 1, 3, 4, 5, 6, 8, 9])        # the others keep their ids
    np.testing.assert_array_equal(album.labels, album.ids % 3)
    assert [album.read(i)[0, 0, 0] for i in range(8)] == album.ids.tolist()
    assert album.path(2) == "3"
    assert "skipped 2 of 10" in album.report_skipped() and "2 (torn)" in album.report_skipped()
    assert album.fingerprint == fingerprint
    assert scan(album, progress=False) == skipped                             # a second scan finds nothing new


def test_report_names_the_first_few():
    album = in_memory(100, bad=set(range(50, 60)))
    scan(album, progress=False)
    assert "skipped 10 of 100" in album.report_skipped() and album.report_skipped().endswith("and 5 more")


def test_nothing_readable():
    with pytest.raises(DataError, match="none of its 4 images can be read; the first is 0: torn"):
        scan(in_memory(4, bad=set(range(4))), progress=False)


def test_a_class_without_readable_images():
    with pytest.raises(DataError, match="no image of class 'class 1' can be read; the first is 1: torn; repair"):
        scan(in_memory(9, bad={1, 4, 7}), progress=False)


def test_decoded_images_are_kept_within_the_memory_allowed():
    calls = []
    album = in_memory(10, calls=calls)
    each = 6 * 6 * 3
    assert album.keep_decoded(4 * each + 5) == 4 * each
    for _ in range(2):
        for i in range(10):
            assert album.read(i)[0, 0, 0] == i
    assert sorted(calls) == sorted([*range(10), *range(4, 10)])               # the first four were decoded once
    assert album.keep_decoded(10**9) == 10 * each


def test_memory_for_kept_images_can_be_replaced_while_others_read(monkeypatch):
    """At no moment is there a place that counts as filled and holds nothing."""
    album, seen = in_memory(8), []
    album.keep_decoded(10**6)
    for i in range(8):
        album.read(i)
    real = np.zeros

    def zeros(*arguments):
        seen.append(album.read(5)[0, 0, 0])                                   # as another loader's thread may
        return real(*arguments)

    monkeypatch.setattr(np, "zeros", zeros)
    album.keep_decoded(7 * 6 * 6 * 3)
    assert seen == [5]


def test_two_scans_of_one_set_at_once_name_the_right_images():
    """The second leaves images out while the first, which reads, is under way."""
    album = in_memory(40, bad={30})

    def visit(image):
        if image[0, 0, 0] == 2:
            album.leave_out({0: "torn"})

    scan(album, visit=visit, workers=1, progress=False)
    assert album.skipped == [("0", "torn"), ("30", "torn")]


def test_kept_images_stay_right_when_others_are_left_out():
    album = in_memory(8, bad={0, 3})
    album.keep_decoded(10**6)
    scan(album, progress=False)
    assert [album.read(i)[0, 0, 0] for i in range(6)] == [1, 2, 4, 5, 6, 7]


def test_select_keeps_ids():
    part = in_memory(10).select([7, 2, 5], "part")
    assert part.name == "part" and len(part) == 3
    np.testing.assert_array_equal(part.ids, [7, 2, 5])
    np.testing.assert_array_equal(part.labels, [1, 2, 2])
    assert part.read(0)[0, 0, 0] == 7


def test_fingerprints_of_different_sets_differ():
    prints = {in_memory(5).fingerprint, in_memory(6).fingerprint, in_memory(5, size=7).fingerprint,
              in_memory(5, classes=2).fingerprint}
    assert len(prints) == 4 and in_memory(5).fingerprint in prints


def test_the_content_is_of_pixels_labels_ids_classes_and_size():
    """In whatever folder they lie: sets whose images would be trained on otherwise have another one."""
    def content(classes="ab", labels=(0, 0, 1), ids=(0, 1, 2), size=(2, 2), checksums=(7, 8, 9), name="here"):
        album = Dataset(name, classes, labels, "xyz", None, size=size, ids=ids)
        album.checksums = np.array(checksums, np.uint32)
        return album.content

    others = {content("bc"), content(labels=(0, 1, 1)), content(ids=(0, 2, 1)), content(size=(2, 3)),
              content(checksums=(7, 8, 0))}
    assert len(others) == 5 and content(name="there") == content() not in others
