"""The lines of a run: a label of 13 columns, and text wrapped beside it."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

from minicnn.errors import MinicnnError, printable
from minicnn.system.terminal import any_text, beside, lasting
from minicnn.train.watch.interrupt import unwinding


def say(label: str, text: str) -> None:
    """Print one entry."""
    print(textwrap.fill(text, 108, initial_indent=f"{label:13s}", subsequent_indent=" " * 13,
                        break_long_words=False, break_on_hyphens=False), flush=True)


def draw(work: Callable[..., Path | list[Path]], *arguments, **options) -> None:
    """Say which pictures work(*arguments, **options) has drawn; one that fails costs a line, and nothing else."""
    drawn = beside(partial(work, *arguments, **options), lambda text: say("pictures", text))
    if drawn:
        say("pictures", " ".join(map(str, drawn if isinstance(drawn, list) else [drawn])))


def exit_code(run: Callable[[], int]) -> int:
    """What `run` returns; 2 and one line for what a user can act on, 130 for Ctrl-C, 141 for a reader that has gone.

    Characters that the terminal lacks are escaped. SIGTERM and SIGHUP stop it as Ctrl-C does.
    """
    with any_text(), lasting("stderr"), unwinding():
        try:
            code = run()
            sys.stdout.flush()
            return code
        except BrokenPipeError:                     # such as `| head`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except (MinicnnError, OSError) as error:    # such as a disk that is full when the page is written
            print(f"error: {printable(str(error))}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stop:
            print("stopped", *stop.args, file=sys.stderr)
            return 130
