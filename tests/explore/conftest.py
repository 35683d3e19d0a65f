"""The page of a small net, served to this process."""

from __future__ import annotations

import io
import json
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlencode

import pytest
import uvicorn
from PIL import Image

from minicnn.data.dataset import Dataset, ImageError
from minicnn.data.input import InputPipeline
from minicnn.data.preprocess import Preprocess
from minicnn.data.procedural import CLASSES, draw_image
from minicnn.explore.serve import listening
from minicnn.explore.server import QuietServer, make_app
from minicnn.explore.session import Session
from tests.helpers.small_run import small_net

UNREADABLE = 5


def decode(number: int):
    if number == UNREADABLE:
        raise ImageError("image 5", "truncated")
    return draw_image(3, 32, number)


def small_session(held_out: bool = True) -> Session:
    net = small_net()
    images = Dataset("forty", CLASSES, [number % 4 for number in range(40)], range(40), decode, size=(32, 32))
    return Session(net, InputPipeline(net, Preprocess(size=32, crop=24, mean=None)), CLASSES, "small net",
                   images if held_out else None, "" if held_out else "the folder is gone")


def photo(width: int = 40, height: int = 32) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw_image(9, 32, 2)).resize((width, height)).save(file, "PNG")
    return file.getvalue()


class Client:
    """Asks a server of this machine."""

    def __init__(self, port: int):
        self.port, self.url = port, f"http://127.0.0.1:{port}/"

    def raw(self, path: str, body=None, headers=(), method: str | None = None) -> tuple:
        """(status, headers, bytes)."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def ask(self, path: str, body=None, **query) -> tuple[int, dict]:
        """(status, the JSON of the answer)."""
        status, _, content = self.raw(f"/api/{path}?{urlencode(query)}", body)
        return status, json.loads(content)


@contextmanager
def serving(session: Session):
    """A client of this session's page."""
    listener = listening(0)
    server = QuietServer(uvicorn.Config(make_app(session), log_level="critical", loop="asyncio", http="h11",
                                           ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield Client(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def client():
    with serving(small_session()) as client:
        yield client
