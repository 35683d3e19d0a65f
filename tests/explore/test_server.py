"""The server: what it answers, and what it refuses in one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from minicnn.explore import server, session
from minicnn.explore.serve import listening, open_session
from minicnn.train.runs.checkpoint import load_checkpoint, save_checkpoint
from tests.cli.test_cli import run
from tests.explore.conftest import photo, serving, small_session
from tests.helpers.small_run import small_trainer

ROOT = Path(__file__).parents[2]
SLOW = """
import sys, time
from minicnn.cli.main import main
from minicnn.explore import serve
from tests.explore.conftest import small_session

def slow():
    print("computing", flush=True)
    time.sleep(60)

def open_session(options):
    session = small_session()
    session.title, session.about = "", slow
    return session

serve.open_session = open_session
serve.print = lambda text, **_: print(text.split()[1], flush=True)
sys.exit(main(["explore", "run", "--no-browser", "--port", "0"]))
"""


@pytest.fixture(scope="module")
def key(client):
    return client.ask("photo", photo(), name="photo.png")[1]["photo"]


def test_the_page_may_load_nothing_from_outside(client):
    status, headers, content = client.raw("/")
    policy = headers["Content-Security-Policy"]
    assert status == 200 and "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert b"<script type=\"module\" src=\"/static/explore.js\">" in content and b" style=" not in content
    for name in ("explore.js", "asking.js", "network.js", "widgets.js", "explore.css", "icon.svg"):
        status, headers, text = client.raw(f"/static/{name}")
        assert status == 200 and headers["X-Content-Type-Options"] == "nosniff"
        assert b"//" not in text.replace(b"http://www.w3.org/2000/svg", b"").replace(b"// ", b"")


@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Host": "evil.example:80", "Origin": "http://evil.example:80"},
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"}])
def test_other_sites_are_refused(client, headers):
    for path, body in (("/", None), ("/api/about", None), ("/api/photo?name=x", photo())):
        status, _, content = client.raw(path, body, headers)
        assert status in (400, 403) and b"class" not in content


def test_this_page_is_answered(client):
    for host in ("127.0.0.1", "localhost"):
        own = f"{host}:{client.port}"
        headers = {"Host": own, "Origin": f"http://{own}", "Sec-Fetch-Site": "same-origin"}
        assert client.raw("/api/photo?name=x", photo(), headers)[0] == 200


@pytest.mark.parametrize(("path", "query", "words"), [
    ("maps", {"layer": "convl"}, "no layer is called 'convl'; did you mean 'conv1'?"),
    ("maps", {}, "/api/maps needs layer; it takes photo, layer"),
    ("projection", {"layer": "conv1", "unit": 8}, "layer 'conv1' has no unit 8: it has 8, counted from 0"),
    ("projection", {"layer": "conv1", "unit": "x"}, "unit must be a whole number, got 'x'"),
    ("projection", {"layer": "conv1", "unit": 0, "row": 10}, "position (10, 0) lies outside a map of 10 x 10"),
    ("projection", {"layer": "conv1", "unit": 0, "rule": "magic"}, "there is no rule 'magic'; expected one of deconv"),
    ("occluded", {"top": 20, "left": 0, "square": 8}, "does not lie within the 24 x 24 pixels"),
    ("strongest", {"layer": "pool1", "unit": -1}, "has no unit -1"),
    ("sample", {"number": 99}, "there is no sample image 99"),
    ("maps", {"layer": "conv1", "photo": "0"}, "this photograph is not in memory any more; choose it again")])
def test_mistakes(client, key, path, query, words):
    usual = {"photo": key, **({"row": 0, "column": 0, "rule": "deconv"} if path == "projection" else {}),
             **({"rule": "deconv", "until": 9} if path == "strongest" else {})}
    status, answer = client.ask(path, **(usual | query))
    assert status == 400 and words in answer["error"] and "\n" not in answer["error"]


@pytest.mark.parametrize(("content", "words"), [
    (b"", "does not begin as"), (b"MZ\x90\0 a program", "does not begin as a JPEG, PNG, GIF, BMP, TIFF or WebP"),
    (b"<svg onload='alert(1)'/>", "does not begin as"), (photo()[:200], "cannot read the image odd\\nname.png"),
    (b"\x89PNG\r\n\x1a\n" + bytes(40), "not an image in a known format")])
def test_uploads_that_are_no_images(client, content, words):
    status, answer = client.ask("photo", content, name="odd\nname.png")
    assert status == 400 and words in answer["error"] and "\n" not in answer["error"]


def test_what_does_not_begin_as_an_image_is_not_decoded(client, monkeypatch):
    monkeypatch.setattr(session, "in_memory", lambda *_: pytest.fail("decoded"))
    assert client.ask("photo", b"P6 1 1 255 abc", name="a.ppm")[0] == 400


@pytest.mark.parametrize("announced", [True, False])
def test_too_large_an_upload(client, monkeypatch, announced):
    monkeypatch.setattr(server, "LARGEST", 2**20)
    body = photo() + bytes(2**20)
    sent = body if announced else (body[at:at + 2**16] for at in range(0, len(body), 2**16))
    status, _, content = client.raw("/api/photo?name=x", sent)
    assert status == 413 and json.loads(content)["error"] == "the file is larger than 1 MiB, the most that is read"


def test_top_patches_without_the_images():
    with serving(small_session(held_out=False)) as client:
        status, answer = client.ask("strongest", layer="pool1", unit=0, rule="deconv", until=9)
    assert status == 400 and answer["error"].endswith("which cannot be opened: the folder is gone")


def test_a_bug_is_one_line_and_nothing_else_stops(monkeypatch):
    broken = small_session()
    monkeypatch.setattr(broken, "maps", lambda **_: 1 / 0)
    with serving(broken) as client:
        status, answer = client.ask("maps", photo="x", layer="y")
        assert status == 500 and "ZeroDivisionError: division by zero" in answer["error"]
        assert client.ask("about")[0] == 200


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layer", ["conv1", "fc3"])
def test_a_network_that_is_not_finite(layer):
    broken = small_session()
    params = broken.net.params[f"{layer}.w"]
    with serving(broken) as client:
        key = client.ask("sample", number=0)[1]["photo"]
        params.data[...] = np.inf
        for path, query in (("sample", {"number": 0}), ("occluded", {"top": 0, "left": 0, "square": 8}),
                            ("maps", {"layer": layer}),
                            ("projection", {"layer": layer, "unit": 0, "row": 0, "column": 0, "rule": "deconv"}),
                            ("strongest", {"layer": layer, "unit": 0, "rule": "deconv", "until": 9})):
            status, answer = client.ask(path, **{"photo": key} | query)
            assert status == 400 and "are not finite (NaN or infinity)" in answer["error"], path
        assert client.ask("sample", number=0)[1]["error"].startswith(
            "the network's outputs are not finite (NaN or infinity) for this photograph, Held-out image ")


# ---- the command
@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore") / "run"
    small_trainer(folder, images=16).fit(1)
    return folder


def test_mistakes_of_the_command(capsys, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: pytest.fail("it serves"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped/metrics.jsonl").write_text("{}\n")
    with listening(0) as taken:
        port = taken.getsockname()[1]
        cases = [((trained, "--port", port), f"port {port} of 127.0.0.1 is in use; choose another one, such as --port"),
                 ((trained, "--port", "70000"), "--port must be from 0 to 65535, got 70000"),
                 ((tmp_path / "none",), "no such run"), ((tmp_path / "empty",), "best.safetensors"),
                 ((tmp_path / "stopped",), "was stopped before its first checkpoint"),
                 ((trained, "--data", tmp_path / "gone"), "gone")]
        for arguments, words in cases:
            port = [] if "--port" in arguments else ["--port", "0"]
            code, out, err = run(capsys, "explore", *map(str, arguments), "--no-browser", *port)
            assert code == 2 and not out and len(err.splitlines()) == 1 and err.startswith("error: ") and words in err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = run(capsys, "explore", str(trained))
    assert code == 2 and err == "error: minicnn explore needs the package uvicorn: pip install 'minicnn[web]'\n"


def test_ctrl_c_while_it_computes():
    """It does not wait for what takes long, and says nothing of it."""
    process = subprocess.Popen([sys.executable, "-c", SLOW], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    address = process.stdout.readline().strip()
    asking = threading.Thread(target=lambda: pytest.raises(OSError, urllib.request.urlopen, f"{address}api/about"))
    asking.start()
    assert process.stdout.readline() == "computing\n"
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    asking.join()
    assert process.returncode == 130 and err == "stopped\n" and time.monotonic() - start < 10


def test_titles(trained, tmp_path, monkeypatch):
    """Of a checkpoint in this folder, and of a network without a name."""
    saved = load_checkpoint(trained / "best.safetensors")
    monkeypatch.chdir(tmp_path)
    meta = {**saved.meta, "net": {**saved.meta["net"], "name": ""}, "recipe": {**saved.meta["recipe"], "net": {}}}
    save_checkpoint("net.safetensors", saved.params, {}, saved.data, meta)
    options = Namespace(out="runs", checkpoint="net.safetensors", device="reference", data=None)
    assert open_session(options).title == "net.safetensors, epoch 1"


def test_it_serves_until_ctrl_c(trained):
    process = subprocess.Popen(
        [sys.executable, "-m", "minicnn.cli", "explore", str(trained), "--no-browser", "--port", "0", "--device",
         "reference"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        title, line = process.stdout.readline(), process.stdout.readline()
        url = line.split()[1]
        assert title == "small · run/best.safetensors, epoch 1\n" and url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url + "api/about", timeout=60) as answer:
            about = json.load(answer)
        assert about["drawn"] and "add --data DIR" in about["why"] and about["layer"] == "pool1"
        with socket.socket() as other:                              # nothing but this machine's own address
            assert other.connect_ex(("127.0.0.2", int(url.split(":")[2].strip("/")))) != 0
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "stopped\n"
