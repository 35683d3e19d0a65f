"""`minicnn explore`: the run, a free port of this machine, the page in the browser, until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
import webbrowser
from pathlib import Path

from minicnn.errors import ConfigError, MinicnnError, one_line
from minicnn.experiment.look import held_out
from minicnn.experiment.nets import title
from minicnn.experiment.options import device_of
from minicnn.experiment.settings import about_of
from minicnn.experiment.trained import load_trained
from minicnn.explore.session import Session
from minicnn.train.runs.run_dir import BEST, find_checkpoint

HOST = "127.0.0.1"


def explore(options: argparse.Namespace) -> None:
    """Serve the page of a run. MinicnnError for a run, a folder or a port that cannot be used."""
    try:
        import uvicorn

        from minicnn.explore.server import QuietServer, make_app
    except ImportError as error:
        raise ConfigError(f"minicnn explore needs the package {error.name}: pip install 'minicnn[web]'") from error
    with listening(options.port) as listener:
        session = open_session(options)
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        print(f"{session.title}\nopen {address}    Ctrl-C ends it", flush=True)
        if not options.no_browser and has_display():
            webbrowser.open(address)
        config = uvicorn.Config(make_app(session), log_level="warning", access_log=False, server_header=False,
                                loop="asyncio", http="h11", ws="none", timeout_graceful_shutdown=1)
        QuietServer(config).run(sockets=[listener])


def listening(port: int) -> socket.socket:
    """A socket at this port, 0 for any free one. ConfigError where it is taken."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port must be from 0 to 65535, got {port}")
    listener = socket.socket()
    if os.name == "posix":                          # elsewhere this would share a port that is in use
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ConfigError(f"port {port} of {HOST} {why}; choose another one, such as --port {min(port + 1, 65535)}, or "
                          "any free one with --port 0") from error
    return listener


def open_session(options: argparse.Namespace) -> Session:
    """The network of the run, and its held-out images where they are still there."""
    checkpoint = find_checkpoint(options.out, options.checkpoint, BEST)
    net, pipeline, meta = load_trained(checkpoint, device_of(options, options.device))
    images, why = None, ""
    try:
        images = held_out(options, checkpoint, pipeline)
    except MinicnnError as error:
        if options.data:
            raise
        why = one_line(error)
    about = about_of(meta)
    name = title(about) if about["model"] else net.name
    where = f"{Path(checkpoint.parent.name, checkpoint.name)}, epoch {meta['epoch']}"
    return Session(net, pipeline, meta["classes"], " · ".join(filter(None, (name, where))), images, why)


def has_display() -> bool:
    """Whether a browser has a screen to open on; else the terminal's own browser would take the terminal."""
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
