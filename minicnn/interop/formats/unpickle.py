"""Pickles read as data: an interpreter of their opcodes that can run nothing.

    value, end = unpickle(data, {"torch.Size": tuple}, persistent=storage_of)

A pickle is a program for a stack machine, and Python's own one imports and calls what it names. Here a name is only
text: those in `known` stand for functions of ours, any other becomes a Foreign object, which keeps nothing. Names that
can only be meant to do harm end the reading. Every step is bounded by the length of the pickle.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from minicnn.errors import CheckpointError

MAX_STEPS = 400_000             # opcodes in a pickle; that of ResNet-152 has 25,000
HARMFUL = frozenset("os posix nt sys subprocess runpy importlib shutil socket pty pdb code ctypes operator commands "
                    "webbrowser http urllib ftplib smtplib asyncio multiprocessing threading tempfile timeit".split())
BUILTINS = ("builtins", "__builtin__")
HARMFUL_BUILTINS = frozenset("eval exec execfile compile open input __import__ getattr setattr delattr globals locals "
                             "vars breakpoint exit quit".split())


class Foreign:
    """An object of a class that is not known here; whatever is done to it has no effect."""

    def __init__(self, name: str):
        self.name = name


class Name:
    """A function or class that a pickle names: text, until something is made with it."""

    def __init__(self, name: str, make: Callable | None):
        self.name, self._make = name, make

    def __call__(self, *args):
        return Foreign(self.name) if self._make is None else self._make(*args)


MARK = object()


def unpickle(data: bytes, known: Mapping[str, Callable], persistent: Callable | None = None, start: int = 0,
             encoding: str = "utf-8"):
    """(the value of the pickle that begins at `start`, the position after it).

    known: "module.name" -> function, called with the arguments in the pickle.   persistent: what a persistent id means.
    Raises CheckpointError for what is damaged, or asks for more than reading.
    """
    machine = _Machine(data, known, persistent, start, encoding)
    try:
        return machine.run(), machine.at
    except (IndexError, KeyError, struct.error, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"damaged: its pickle cannot be read at byte {machine.at:,} ({type(error).__name__})"
                              ) from error


class _Machine:
    def __init__(self, data, known, persistent, start, encoding):
        self.data, self.known, self.persistent, self.at = data, known, persistent, start
        self.encoding, self.stack, self.memo, self.names = encoding, [], {}, {}

    def run(self):
        for _ in range(MAX_STEPS):
            code = self.data[self.at]
            self.at += 1
            if code == 0x2E:                                # STOP
                return self.pop()
            if (step := STEPS.get(code)) is None:
                raise CheckpointError(f"its pickle has the opcode 0x{code:02x} at byte {self.at - 1:,}, which no file "
                                      "of weights needs; save the weights alone, as model.state_dict()")
            step(self)
        raise CheckpointError(f"its pickle has more than {MAX_STEPS:,} opcodes; save the weights alone, as "
                              "model.state_dict()")

    # ---- what is read
    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise CheckpointError(f"cut short: its pickle announces {count:,} bytes at byte {self.at:,} of "
                                  f"{len(self.data):,}")
        self.at += count
        return bytes(self.data[self.at - count:self.at])

    def number(self, form: str) -> int | float:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 1000)
        if end < 0:
            raise CheckpointError(f"damaged: its pickle has a line without an end at byte {self.at:,}")
        text = bytes(self.data[self.at:end]).decode("utf-8")
        self.at = end + 1
        return text

    # ---- the stack
    def push(self, value) -> None:
        self.stack.append(value)

    def pop(self):
        value = self.stack.pop()
        if value is MARK:
            raise CheckpointError(f"damaged: its pickle uses a mark as a value at byte {self.at:,}")
        return value

    def to_mark(self) -> list:
        for k in range(len(self.stack) - 1, -1, -1):
            if self.stack[k] is MARK:
                items = self.stack[k + 1:]
                del self.stack[k:]
                return items
        raise CheckpointError(f"damaged: its pickle has no mark before byte {self.at:,}")

    def remember(self, index: int) -> None:
        if self.stack[-1] is MARK:
            raise CheckpointError(f"damaged: its pickle remembers a mark at byte {self.at:,}")
        self.memo[index] = self.stack[-1]                   # a dict: the index decides no allocation

    # ---- objects
    def name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if module.partition(".")[0] in HARMFUL or (module in BUILTINS and name in HARMFUL_BUILTINS):
            raise CheckpointError(f"this file runs {full[:60]} when it is unpickled; it was refused, and nothing was "
                                  "run. Do not load it with anything else")
        self.push(self.names.setdefault(full, Name(full, self.known.get(full))))

    def global_(self) -> None:
        module = self.line()
        self.name(module, self.line())

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CheckpointError(f"damaged: its pickle names a class by what is no text at byte {self.at:,}")
        self.name(module, name)

    def reduce(self) -> None:
        args, what = self.pop(), self.pop()
        self.make(what, args)

    def obj(self) -> None:
        what, *args = self.to_mark()
        self.make(what, tuple(args))

    def make(self, what, args) -> None:
        if not isinstance(what, (Name, Foreign)) or not isinstance(args, tuple):
            raise CheckpointError(f"damaged: its pickle calls what is no function at byte {self.at:,}")
        self.push(what(*args) if isinstance(what, Name) else Foreign(what.name))

    def build(self) -> None:
        state = self.pop()
        if self.stack[-1] is MARK:
            raise CheckpointError(f"damaged: its pickle sets the state of a mark at byte {self.at:,}")
        if hasattr(self.stack[-1], "set_state"):            # ours; that of a dict or of a Foreign object is dropped
            self.stack[-1].set_state(state)

    def extend(self, items: list) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Foreign):
            raise CheckpointError(f"damaged: its pickle appends to what is no list at byte {self.at:,}")

    def set_items(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, (dict, Foreign)):
            raise CheckpointError(f"damaged: its pickle sets items of what is no dict at byte {self.at:,}")
        if len(items) % 2:
            raise CheckpointError(f"damaged: its pickle has a key without a value at byte {self.at:,}")
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                if isinstance(key, (str, int, float)):      # a nested tuple could not even be hashed safely
                    target[key] = value

    def persistent_id(self) -> None:
        if self.persistent is None:
            raise CheckpointError("its pickle refers to data that are not in the file")
        self.push(self.persistent(self.pop()))

    def text(self, count: int) -> None:
        self.push(self.take(count).decode("utf-8", "surrogatepass"))

    def old_text(self, count: int) -> None:
        raw = self.take(count)
        self.push(raw if count > 4096 else raw.decode(self.encoding))   # Python 2's str: text, or an array's bytes

    def long(self) -> None:
        self.push(int.from_bytes(self.take(self.number("<B")), "little", signed=True))


def _tuple(count: int):
    def step(machine: _Machine) -> None:
        items = [machine.pop() for _ in range(count)][::-1]
        machine.push(tuple(items))
    return step


def _constant(value):
    return lambda machine: machine.push(value)


STEPS: dict[int, Callable[[_Machine], None]] = {ord(code): step for code, step in {
    "(": lambda m: m.stack.append(MARK), "0": lambda m: m.pop(), "1": lambda m: m.to_mark() and None,
    "2": lambda m: m.push(m.stack[-1]) if m.stack[-1] is not MARK else m.pop(),
    "N": _constant(None), "\x88": _constant(True), "\x89": _constant(False), ")": _constant(()),
    "]": lambda m: m.push([]), "}": lambda m: m.push({}), "\x8f": lambda m: m.push(Foreign("set")),
    "J": lambda m: m.push(m.number("<i")), "K": lambda m: m.push(m.number("<B")), "M": lambda m: m.push(m.number("<H")),
    "G": lambda m: m.push(m.number(">d")), "\x8a": lambda m: m.long(),
    "X": lambda m: m.text(m.number("<I")), "\x8c": lambda m: m.text(m.number("<B")),
    "U": lambda m: m.old_text(m.number("<B")), "T": lambda m: m.old_text(m.number("<i")),
    "C": lambda m: m.push(m.take(m.number("<B"))), "B": lambda m: m.push(m.take(m.number("<I"))),
    "t": lambda m: m.push(tuple(m.to_mark())), "\x85": _tuple(1), "\x86": _tuple(2), "\x87": _tuple(3),
    "l": lambda m: m.push(m.to_mark()), "d": lambda m: _dict(m),
    "a": lambda m: m.extend([m.pop()]), "e": lambda m: m.extend(m.to_mark()), "\x90": lambda m: m.extend(m.to_mark()),
    "s": lambda m: m.set_items([m.pop(), m.pop()][::-1]), "u": lambda m: m.set_items(m.to_mark()),
    "c": lambda m: m.global_(), "\x93": lambda m: m.stack_global(), "R": lambda m: m.reduce(),
    "\x81": lambda m: m.reduce(), "o": lambda m: m.obj(), "b": lambda m: m.build(), "Q": lambda m: m.persistent_id(),
    "q": lambda m: m.remember(m.number("<B")), "r": lambda m: m.remember(m.number("<I")),
    "\x94": lambda m: m.remember(len(m.memo)),
    "h": lambda m: m.push(m.memo[m.number("<B")]), "j": lambda m: m.push(m.memo[m.number("<I")]),
    "\x80": lambda m: _protocol(m, m.number("<B")), "\x95": lambda m: m.take(8) and None,
}.items()}


def _dict(machine: _Machine) -> None:
    items = machine.to_mark()
    machine.push({})
    machine.set_items(items)


def _protocol(machine: _Machine, protocol: int) -> None:
    if not 0 <= protocol <= 5:
        raise CheckpointError(f"damaged: a pickle of protocol {protocol}")
