"""The page and what it asks for, over HTTP on this machine.

Nobody else is answered: requests for another host (DNS rebinding) and requests that another site's page makes are
refused, and the page itself may load nothing from outside.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from minicnn.errors import ConfigError, MinicnnError, one_line
from minicnn.explore.session import Session
from minicnn.explore.worker import SupersededError, Worker

STATIC = Path(__file__).parent / "static"
HOSTS = ["127.0.0.1", "localhost"]
LARGEST = 64 * 2**20                        # bytes of an upload
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                               "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin"}
OWN_SITE = (None, "same-origin", "none")    # Sec-Fetch-Site: not a browser, this page, the address line


class OnlyThisPage:
    """Middleware: 403 for what another site's page asks for, and the headers of every answer."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin, host = given.get(b"origin"), given.get(b"host", "")
        foreign = given.get(b"sec-fetch-site") not in OWN_SITE or origin not in (None, f"http://{host}")
        answer = _error(403, "only the page of minicnn explore itself is answered") if foreign else self.app

        async def with_headers(message):
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await answer(scope, receive, with_headers)


class QuietServer(uvicorn.Server):
    """Requests that its end cuts off, such as a long computation, are not logged as errors."""

    async def shutdown(self, sockets=None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def make_app(session: Session) -> Starlette:
    """The application. Its work on the network is done in one thread, which ends with it."""
    worker = Worker()

    async def answered(request: Request, topic: str, work: Callable) -> Response:
        """What work() returns, as JSON; 204 where a newer request of this tab and topic has made it obsolete."""
        tab = request.headers.get("x-tab", "")[:40]
        try:
            return _json(200, await worker.run(f"{tab} {topic}", work))
        except SupersededError:
            return Response(status_code=204)

    def asking(topic: str, work: Callable, **kinds: type) -> Route:
        async def endpoint(request: Request) -> Response:
            return await answered(request, topic + request.query_params.get("rule", ""),
                                  partial(work, **_arguments(request, kinds)))
        return Route(f"/api/{topic}", endpoint)

    async def upload(request: Request) -> Response:
        name = request.query_params.get("name", "")
        return await answered(request, "photo", partial(session.upload, await _body(request), name))

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "explore.html")

    @asynccontextmanager
    async def lifespan(app):
        yield
        worker.close()

    return Starlette(lifespan=lifespan, routes=[
        Route("/", page), Mount("/static", StaticFiles(directory=STATIC)),
        Route("/api/photo", upload, methods=["POST"]),
        asking("about", session.about),
        asking("sample", session.sample, number=int),
        asking("maps", session.maps, photo=str, layer=str),
        asking("projection", session.projection, photo=str, layer=str, unit=int, row=int, column=int, rule=str),
        asking("occluded", session.occluded, photo=str, top=int, left=int, square=int),
        asking("strongest", session.strongest, layer=str, unit=int, rule=str, until=int),
    ], middleware=[Middleware(OnlyThisPage), Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
        exception_handlers={MinicnnError: _refused, HTTPException: _http_error, Exception: _bug,
                            ClientDisconnect: _gone})


def _arguments(request: Request, kinds: dict[str, type]) -> dict:
    """The query as the arguments of the work. ConfigError for one that is missing, or is no whole number."""
    found = {}
    for name, kind in kinds.items():
        text = request.query_params.get(name)
        if text is None:
            raise ConfigError(f"{request.url.path} needs {name}; it takes {', '.join(kinds)}")
        try:
            found[name] = kind(text[:200])
        except ValueError:
            raise ConfigError(f"{name} must be a whole number, got {text[:40]!r}") from None
    return found


async def _body(request: Request) -> bytes:
    """The bytes of an upload; 413 as soon as they are too many."""
    too_large = HTTPException(413, f"the file is larger than {LARGEST // 2**20} MiB, the most that is read")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > LARGEST:
        raise too_large
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > LARGEST:
            raise too_large
    return bytes(data)


def _json(status: int, content: dict) -> Response:
    text = json.dumps(content, default=lambda value: value.item(), allow_nan=False)            # default: of NumPy
    return Response(text, status, media_type="application/json")


def _error(status: int, words: str) -> Response:
    return _json(status, {"error": words})


def _refused(request: Request, error: Exception) -> Response:
    return _error(400, one_line(error))


def _http_error(request: Request, error: HTTPException) -> Response:
    return _error(error.status_code, error.detail)


def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=204)


def _bug(request: Request, error: Exception) -> Response:
    """Its traceback goes to the terminal."""
    return _error(500, f"an error in minicnn, please report it: {one_line(error)} (details in the terminal)")
