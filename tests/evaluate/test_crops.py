"""Where the crops of evaluation lie."""

from minicnn.evaluate.crops import one_crop, ten_crops

HW = (256, 256)


def test_ten_crops_in_the_papers_order():
    crops = ten_crops(2, 224, HW)
    places = [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    assert [(int(c["top"][1]), int(c["left"][1]), int(c["flip"][1])) for c in crops] == (
        [(*place, 0) for place in places] + [(*place, 1) for place in places])
    (middle,) = one_crop(3, 224, HW)
    assert middle["top"].tolist() == middle["left"].tolist() == [16] * 3 and not middle["shift"].any()
