"""What the page shows is what minicnn/visualize computes."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from minicnn.explore import session as sessions
from minicnn.explore.worker import SupersededError, Worker
from minicnn.visualize.occlusion import answers, occlusion
from minicnn.visualize.panels import on_grey
from minicnn.visualize.projection import project
from minicnn.visualize.top import top_images, top_patches
from minicnn.visualize.views import views
from tests.explore.conftest import UNREADABLE, photo, small_session


@pytest.fixture(scope="module")
def session():
    return small_session()


@pytest.fixture(scope="module")
def chosen(session):
    """(address of the photograph, its network input)."""
    key = session.upload(photo(), "photo.png")["photo"]
    return key, session._photos[key].x


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(255 * image).astype(np.uint8)


def test_predictions(session, chosen):
    found = session.upload(photo(), "photo.png")
    chances = answers(session.net, chosen[1][None], "conv1")[1][0]
    assert [guess["label"] for guess in found["guesses"]] == np.argsort(-chances).tolist()
    assert [guess["probability"] for guess in found["guesses"]] == sorted(chances, reverse=True)
    assert pixels(found["picture"]).shape == (24, 24, 3) and found["photo"] == chosen[0]


@pytest.mark.parametrize("layer", ["conv1", "relu1", "fc2"])
def test_maps(session, chosen, layer):
    found = session.maps(chosen[0], layer)
    outputs = session.net.trace(chosen[1][None], keep=layer)[layer][0]
    flat = outputs.reshape(-1, outputs.shape[-1])
    assert found["order"] == np.argsort(-flat.max(axis=0), kind="stable").tolist()
    np.testing.assert_allclose(found["peaks"], flat.max(axis=0), rtol=1e-3)
    if layer == "fc2":
        assert found["picture"] is None and found["places"] == [[0, 0]] * 32
        return
    unit = found["order"][0]
    row, column = found["places"][unit]
    assert outputs[row, column, unit] == outputs[..., unit].max() > 0
    top, left = (10 * place for place in divmod(unit, 3))            # the sheet is 3 x 3 maps of 10 x 10
    tile = pixels(found["picture"])[top:top + 10, left:left + 10]
    scaled = outputs[..., unit] / np.abs(outputs[..., unit]).max()
    np.testing.assert_array_equal(tile, uint8(0.5 + 0.5 * scaled if layer == "conv1" else scaled))
    assert ("blue negative" in found["caption"]) == (layer == "conv1")


@pytest.mark.parametrize(("rule", "known"), [("deconv", "deconvnet"), ("guided", "guided"), ("gradient", "backprop")])
def test_projections(session, chosen, rule, known):
    found = session.projection(chosen[0], "relu1", 2, 3, 4, rule)
    wanted = project(session.net, chosen[1][None], "relu1", 2, (3, 4), rule=known)
    np.testing.assert_array_equal(pixels(found["picture"]), uint8(on_grey(wanted.pixels[0])))
    assert found["box"] == wanted.boxes[0] == (6, 8, 11, 13) and found["caption"].startswith(wanted.captions[0])


def test_the_square(session, chosen):
    found = session.occluded(chosen[0], 8, 16, 8)["guesses"]
    wanted = occlusion(session.net, chosen[1], found[0]["label"], square=8, step=8, progress=False)
    assert found[0]["probability"] == pytest.approx(wanted.probability[1, 2], abs=1e-6)
    assert wanted.probability[1, 2] != pytest.approx(wanted.probability[1, 1], abs=1e-6)


def test_top_patches_by_parts_are_those_of_one_pass(session, monkeypatch):
    """An image that cannot be read is left out and counted."""
    monkeypatch.setattr("minicnn.explore.strongest.SECONDS", 1e-9)   # one batch an answer
    monkeypatch.setattr("minicnn.explore.strongest.BATCH", 16)
    seen = [session.strongest("pool1", 3, "deconv", 1000) for _ in range(3)]
    assert [(found["seen"], found["of"], bool(found["patches"])) for found in seen] == [
        (16, 40, False), (32, 40, False), (40, 40, True)]
    order = np.random.default_rng(0).permutation(40)
    readable = session._held_out.select(order[order != UNREADABLE])
    top = top_images(session.net, session.pipeline, readable, "pool1", [3], progress=False)
    wanted = top_patches(session.net, session.pipeline, readable, top, 3)
    for found, patch, projection in zip(seen[2]["patches"], wanted.patches, wanted.projections, strict=True):
        np.testing.assert_array_equal(pixels(found["patch"]), patch)
        np.testing.assert_array_equal(pixels(found["projection"]), uint8(on_grey(projection)))
    assert "1 could not be read" in seen[2]["caption"] and "9 of 39 images" in seen[2]["caption"]


def test_samples_are_the_held_out_images_that_can_be_read(session):
    about = session.about()
    names = [sample["name"] for sample in about["samples"]]
    assert len(names) >= 7 and not about["drawn"] and all(name.startswith("Held-out image ") for name in names)
    assert len({session.sample(about["samples"][k]["number"])["truth"] for k in range(3)}) == 3      # classes in turn
    found = session.sample(about["samples"][0]["number"])
    number = int(names[0].rpartition(" ")[2])
    assert found["truth"] == session.classes[number % 4]
    _, x = views(session.pipeline, session._held_out.select([number]))
    np.testing.assert_array_equal(session._photos[found["photo"]].x, x[0])


def test_without_the_images_of_the_run():
    session = small_session(held_out=False)
    about = session.about()
    assert about["drawn"] and about["why"] == "the folder is gone" and len(about["samples"]) == 6
    assert about["samples"][0]["name"] == "Sample drawn-airplane"
    assert session.sample(0)["truth"] is None


def test_a_file_whose_name_is_no_text(session, monkeypatch):
    monkeypatch.setattr(session._samples, "path", lambda number: "caf\udce9/1.png")
    assert session.sample(0)["name"] == "Held-out image caf\\udce9/1.png"


def test_photographs_are_forgotten_after_many(session, monkeypatch):
    monkeypatch.setattr(sessions, "KEPT", 2)
    first = session.upload(photo(41), "first")["photo"]
    for width in (42, 43):
        session.upload(photo(width), "later")
    with pytest.raises(sessions.ConfigError, match="choose it again"):
        session.maps(first, "conv1")


def test_of_jobs_that_wait_the_newest_of_a_topic_is_done():
    worker, begun, go, done = Worker(), threading.Event(), threading.Event(), []

    async def everything():
        first = asyncio.ensure_future(worker.run("drag", lambda: begun.set() or go.wait(10)))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        topics = enumerate(["drag", "drag", "maps", "drag"])
        jobs = [worker.run(topic, lambda k=k: done.append(k)) for k, topic in topics]
        later = asyncio.gather(*jobs, return_exceptions=True)
        await asyncio.sleep(0.05)
        go.set()
        return await first, await later

    with ThreadPoolExecutor(1) as thread:                           # Playwright's loop runs in this one
        first, later = thread.submit(asyncio.run, everything()).result()
    worker.close()
    assert first and done == [2, 3]
    assert [type(result) for result in later] == [SupersededError, SupersededError, type(None), type(None)]
