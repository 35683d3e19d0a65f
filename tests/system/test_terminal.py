"""Nothing that happens to standard output and standard error ends a computation."""

import io
import os
import subprocess
import sys
import warnings

import pytest

from minicnn.system.terminal import LastingStream, any_text, beside, is_terminal, lasting


class Broken(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self):
        self.write("")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_lost_stream(monkeypatch, name):
    stream = Broken()
    monkeypatch.setattr(sys, name, stream)
    with lasting():
        print("to nobody", file=getattr(sys, name), flush=True)
        assert getattr(sys, name).isatty() is False
    assert getattr(sys, name) is stream


def test_a_stream_that_was_closed(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)
    with lasting():
        print("to nobody", flush=True)
    assert not is_terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert not is_terminal()


OPENED = ("import sys; from minicnn.system.terminal import any_text\n"
          "with any_text(), open(sys.argv[1], 'w') as file: print(file.fileno(), file=file)")


def test_no_file_gets_the_descriptor_of_a_closed_stream(tmp_path):
    """What libraries print would be written into it."""
    subprocess.run(["bash", "-c", '"$@" <&- >&- 2>&-', "", sys.executable, "-c", OPENED, tmp_path / "file"], check=True)
    assert int((tmp_path / "file").read_text()) > 2


def test_what_is_left_of_a_lost_pipe_does_not_come_back_at_exit(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with lasting():
            print("in the buffer", end="")
            os.close(reading)
    assert stream.closed                                # which flushes


def test_characters_that_the_encoding_lacks():
    data = io.BytesIO()
    stream = LastingStream(io.TextIOWrapper(data, encoding="ascii", errors="strict", write_through=True))
    print("caf\udce9 고", file=stream)
    assert data.getvalue() == b"caf\\udce9 \\uace0\n"


def test_any_text(monkeypatch):
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding="utf-8", errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)
    with any_text():
        print("caf\udce9 고")
        sys.stderr.write("closed before Python began")
    assert data.getvalue().decode() == "caf\\udce9 고\n" and stream.errors == "strict" and sys.stderr is None


def test_side_work():
    said = []

    def work():
        for _ in range(3):
            warnings.warn("no such\n glyph", stacklevel=1)
        return 1 / zero

    for zero in (1, 0):
        assert beside(work, said.append) == (1 if zero else None)
    assert said == ["no such glyph", "no such glyph", "ZeroDivisionError: division by zero"]
    with pytest.raises(KeyboardInterrupt):
        beside(lambda: (_ for _ in ()).throw(KeyboardInterrupt()), said.append)
