"""Protocol buffers as text, by the same tables as wire.py: what Caffe calls .prototxt.

    name: value     name { ... }     name: < ... >     name: [a, b]     # comment

Enumerations by name or number; strings in either quotes, adjacent ones joined. Fields that a table does not have are
skipped whole, and listed.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping

from minicnn.errors import CheckpointError
from minicnn.interop.formats.caffe.schema import ENUMS
from minicnn.interop.formats.wire import MAX_DEPTH, MAX_FIELDS

MAX_TEXT = 4 * 2**20
TOKEN = re.compile(r"""(?P<space>[\s,;]+|\#[^\n]*)|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
                   r"""|(?P<mark>[{}<>\[\]:])|(?P<word>[A-Za-z0-9_.+\-/]+)""")


def parse(text: str, schema: Mapping) -> tuple[dict, set[str]]:
    """The message, and the names of the fields that were skipped. CheckpointError, with the line, for what is no such
    text."""
    parser = _Parser(text)
    message = parser.message(schema, "")
    return message, parser.skipped


class _Parser:
    def __init__(self, text: str):
        if len(text) > MAX_TEXT:
            raise CheckpointError(f"a text of {len(text):,} characters; expected at most {MAX_TEXT:,}")
        self.text, self.at, self.fields, self.skipped = text, 0, 0, set()
        self.tokens = self._tokens()
        self.kind, self.token = next(self.tokens)

    def _tokens(self) -> Iterator[tuple[str, str]]:
        while self.at < len(self.text):
            match = TOKEN.match(self.text, self.at)
            if match is None:
                raise self.error(f"cannot read {self.text[self.at:self.at + 20]!r}")
            self.at = match.end()
            if match.lastgroup != "space":
                yield match.lastgroup, match.group()
        yield "end", ""

    def error(self, what: str) -> CheckpointError:
        return CheckpointError(f"line {self.text.count(chr(10), 0, self.at) + 1}: {what}")

    def take(self) -> str:
        token, (self.kind, self.token) = self.token, next(self.tokens)
        return token

    def message(self, schema: Mapping, closing: str, depth: int = 0) -> dict:
        """The fields up to the closing mark, which is taken too."""
        if depth > MAX_DEPTH:
            raise self.error(f"messages nested more than {MAX_DEPTH} deep")
        by_name = {name: kind for name, kind in schema.values()}
        found: dict = {}
        while not (self.kind == "end" if closing == "" else self.token == closing and self.kind == "mark"):
            if self.kind != "word":
                raise self.error(f"expected the name of a field, got {self.token!r}" if self.token else
                                 f"cut short: {closing!r} is missing")
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise self.error(f"more than {MAX_FIELDS:,} fields")
            name = self.take()
            colon = self.token == ":" and bool(self.take())
            if name in by_name:
                self.field(found, name, by_name[name], colon, depth)
            else:
                self.skipped.add(name)
                self.skip(depth)
        if closing:
            self.take()
        return found

    def field(self, found: dict, name: str, kind, colon: bool, depth: int) -> None:
        repeated, kind = (True, kind[0]) if isinstance(kind, list) else (kind in ("ints", "floats", "doubles"), kind)
        if self.token == "[" and repeated:
            self.take()
            while self.token != "]":
                found.setdefault(name, []).append(self.value(name, kind, depth))
            self.take()
            return
        if not colon and not isinstance(kind, Mapping):
            raise self.error(f"expected ':' after {name!r}")
        value = self.value(name, kind, depth)
        if repeated:
            found.setdefault(name, []).append(value)
        elif isinstance(kind, Mapping) and name in found:
            found[name] |= value
        else:
            found[name] = value

    def value(self, name: str, kind, depth: int):
        if isinstance(kind, Mapping):
            if self.token not in ("{", "<"):
                raise self.error(f"expected '{{' after {name!r}, got {self.token!r}")
            return self.message(kind, {"{": "}", "<": ">"}[self.take()], depth + 1)
        if kind == "text":
            return self.string(name)
        if self.kind != "word":
            raise self.error(f"expected a value of {name!r}, got {self.token!r}")
        word = self.take()
        try:
            return _number(name, word, kind)
        except ValueError:
            raise self.error(f"{name}: {word!r} is no value of it") from None

    def string(self, name: str) -> str:
        if self.kind == "word":                             # an enumeration of a schema that has text there
            return self.take()
        parts = []
        while self.kind == "text":
            parts.append(self.take()[1:-1])
        if not parts:
            raise self.error(f"expected text after {name!r}, got {self.token!r}")
        try:
            return codecs.escape_decode("".join(parts).encode())[0].decode("utf-8", "replace")
        except ValueError:
            raise self.error(f"{name}: a text with an escape that does not exist") from None

    def skip(self, depth: int) -> None:
        """What follows the name of an unknown field."""
        if self.token in ("{", "<") and self.kind == "mark":
            self.message({}, {"{": "}", "<": ">"}[self.take()], depth + 1)
        elif self.token == "[" and self.kind == "mark":
            while self.token != "]":
                if self.kind == "end":
                    raise self.error("cut short: ']' is missing")
                self.take()
            self.take()
        elif self.kind in ("word", "text"):
            while self.kind == "text":
                self.take()
                if self.kind != "text":
                    return
            self.take()
        else:
            raise self.error(f"expected a value, got {self.token!r}")


def _number(name: str, word: str, kind: str) -> int | float:
    if kind in ("float", "floats", "doubles"):
        return float(word[:-1] if word[-1:] in "fF" and word[:-1] and word.lower() != "inf" else word)
    if word in ENUMS.get(name, {}):
        return ENUMS[name][word]
    if word in ("true", "false", "t", "f"):
        return int(word[0] == "t")
    value = int(word, 0)
    if abs(value) >= 2**63:
        raise ValueError
    return value
