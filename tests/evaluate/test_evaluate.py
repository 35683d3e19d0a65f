"""Evaluation: one crop and ten, against sums written out here."""

import numpy as np
import pytest

from minicnn.data.input import InputPipeline
from minicnn.data.preprocess import Preprocess
from minicnn.data.procedural import procedural_sets
from minicnn.data.statistics import measure
from minicnn.evaluate.evaluate import Evaluation, averaged, evaluate
from tests.helpers.small_run import small_net


@pytest.fixture(scope="module")
def parts():
    train, _, test = procedural_sets((40, 4, 21), seed=5, size=32)
    net = small_net()
    return net, test, measure(train, progress=False).mean


def pipeline_of(net, mean):
    return InputPipeline(net, Preprocess(size=32, crop=24), mean)


def softmax(logits):
    e = np.exp(logits.astype(np.float64))
    return e / e.sum(axis=1, keepdims=True)


def crops(test, mean, top, left, mirrored=False):
    images = np.stack([test.read(i) for i in range(len(test))]).astype(np.float32) - mean
    images = images[:, top:top + 24, left:left + 24]
    return np.ascontiguousarray(images[:, :, ::-1] if mirrored else images)


def test_centre_crop(parts):
    net, test, mean = parts
    result = evaluate(net, test, pipeline_of(net, mean), batch=8, progress=False)
    expected = softmax(net.forward(crops(test, mean, 4, 4)))
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-4)
    own = expected[np.arange(21), test.labels]
    assert result.loss == pytest.approx(-np.log(own).mean(), rel=1e-4)
    assert result.top1 == (expected.argmax(axis=1) == test.labels).mean() and result.top5 == 1.0


def test_ten_crops_average_the_softmax(parts):
    net, test, mean = parts
    result = evaluate(net, test, pipeline_of(net, mean), batch=8, ten_crop=True, progress=False)
    ten = [softmax(net.forward(crops(test, mean, top, left, mirrored)))
           for mirrored in (False, True) for top, left in [(0, 0), (0, 8), (4, 4), (8, 0), (8, 8)]]
    np.testing.assert_allclose(result.probabilities, np.mean(ten, axis=0), rtol=1e-4)
    assert np.ptp(ten, axis=0).max() > 0.01             # the crops do differ


def test_the_batch_does_not_matter(parts):
    net, test, mean = parts
    pipeline = pipeline_of(net, mean)
    results = [evaluate(net, test, pipeline, batch=batch, progress=False) for batch in (1, 8, 21, 64)]
    for other in results[1:]:
        np.testing.assert_allclose(other.probabilities, results[0].probabilities, rtol=1e-4)
        assert other.top1 == results[0].top1


def test_top_5_of_seven_classes(parts):
    """Labels of each rank: five of seven are among the first five, and both numbers are printed."""
    _, test, mean = parts
    net = small_net(classes=7)
    first = evaluate(net, test, pipeline_of(net, mean), progress=False)
    ranked = np.argsort(-first.probabilities, axis=1)                           # (21, 7)
    labels = ranked[np.arange(21), np.arange(21) % 7].astype(np.int32)
    result = averaged([Evaluation(0.0, 0.0, 0.0, first.probabilities, labels)])
    assert (result.top1, result.top5) == (3 / 21, 15 / 21)
    assert str(result).startswith("accuracy 14.3 %, top-5 71.4 %, loss ")


def test_it_can_be_stopped(parts):
    net, test, mean = parts
    assert evaluate(net, test, pipeline_of(net, mean), progress=False, stop=lambda: True) is None


def test_several_networks_are_averaged(parts):
    """The mean of their probabilities, evaluated as one network's are."""
    net, test, mean = parts
    results = [evaluate(small_net(seed=seed), test, pipeline_of(net, mean), batch=8, progress=False)
               for seed in (1, 2, 3)]
    together = averaged(results)
    expected = np.mean([result.probabilities for result in results], axis=0)
    np.testing.assert_array_equal(together.probabilities, expected)
    assert together.top1 == (expected.argmax(axis=1) == test.labels).mean()
    assert together.loss == pytest.approx(-np.log(expected[np.arange(21), test.labels]).mean())
    alone = averaged(results[:1])
    assert (alone.loss, alone.top1) == (results[0].loss, results[0].top1)


def test_the_worst_classes_come_first():
    probabilities = np.eye(3)[[0, 0, 1, 2, 2, 2]]
    evaluation = Evaluation(1.0, 0.5, 1.0, probabilities, np.array([0, 1, 1, 2, 2, 0]))
    assert evaluation.by_class() == [(0, 0.5, 2), (1, 0.5, 2), (2, 1.0, 2)]
