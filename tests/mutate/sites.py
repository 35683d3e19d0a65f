"""Where a mistake can be made in a source text, and which: of arithmetic, comparison, index, constant, deleted call.

Texts for people are left alone: docstrings, messages, what is raised, printed or described. Python is read by `ast`;
CUDA C++ by its tokens, of which only those that are certain to be operators are taken: with a space on either side.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

PYTHON = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
          ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"), ast.Pow: ("**", "*"),
          ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
          ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"), ast.And: ("and", "or"), ast.Or: ("or", "and"),
          ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
          ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
          ast.NotIn: ("not in", "in")}
CUDA = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=",
        "!=": "==", "&&": "||", "||": "&&", "+=": "-=", "-=": "+=", "*=": "/=", "&": "|", "|": "&"}
LEFT_ALONE = (ast.Raise, ast.JoinedStr, ast.Assert, ast.Import, ast.ImportFrom)
COMPARISONS = {"<", "<=", ">", ">=", "==", "!=", "is", "is not", "in", "not in", "and", "or", "&&", "||"}
# Calls and functions whose texts are for people, and checks of arguments' types.
SAYS = {"say", "print", "line", "lines", "warn", "expected", "expected_one_of", "need_axes", "finite", "whole", "join",
        "isinstance", "TypeVar", "progress", "say_epoch"}
DESCRIBES = re.compile(r"describe|_words|in_words|__repr__|__str__|_?say|_wrong|_too_dark|kept$|report")


class Mutant(NamedTuple):
    """The text from `start` to `end` becomes `new`."""

    kind: str
    start: int
    end: int
    old: str
    new: str
    line: int
    column: int                                             # from 1, as editors count

    def apply(self, text: str) -> str:
        return text[:self.start] + self.new + text[self.end:]


def mutants(text: str, suffix: str) -> list[Mutant]:
    """All mutants of a source text; suffix: ".py", ".cu" or ".cuh"."""
    return sorted(set(_Python(text).mutants if suffix == ".py" else _cuda(text)), key=lambda mutant: mutant[1:])


def _mutant(text: str, kind: str, start: int, end: int, new: str) -> Mutant:
    return Mutant(kind, start, end, text[start:end], new, text.count("\n", 0, start) + 1,
                  start - text.rfind("\n", 0, start))


class _Python(ast.NodeVisitor):
    def __init__(self, text: str):
        self.text, self.mutants, self._in_index = text, [], 0
        self._lines = [0]
        for line in text.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self.visit(ast.parse(text))

    def _at(self, line: int, byte: int) -> int:
        """The place in the text; ast counts bytes."""
        start = self._lines[line - 1]
        return start + len(self.text[start:self._lines[line]].encode()[:byte].decode())

    def _span(self, node) -> tuple[int, int]:
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def _add(self, kind: str, start: int, end: int, new: str) -> None:
        self.mutants.append(_mutant(self.text, kind, start, end, new))

    def _operator(self, op, after: int, before: int) -> None:
        """The operator between two operands."""
        old, new = PYTHON.get(type(op), ("", ""))
        pattern = re.escape(old).replace(r"\ ", r"\s+")
        if old and (match := re.compile(rf"[\s)]*(?:#[^\n]*\s*)*({pattern})").match(self.text, after, before)):
            self._add("comparison" if old in COMPARISONS else "arithmetic", *match.span(1), new)

    # ---- what is left alone
    def generic_visit(self, node) -> None:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "keywords") and not isinstance(node, ast.Call):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child)

    def visit(self, node) -> None:
        if not isinstance(node, LEFT_ALONE):
            super().visit(node)

    def visit_FunctionDef(self, node) -> None:
        if not DESCRIBES.match(node.name):
            self.generic_visit(node)

    # ---- mutants
    def visit_BinOp(self, node) -> None:
        texts = any(isinstance(part, ast.JoinedStr) or isinstance(part, ast.Constant) and isinstance(part.value, str)
                    for part in ast.walk(node))
        if not texts:
            self._operator(node.op, self._span(node.left)[1], self._span(node.right)[0])
        self.generic_visit(node)

    def visit_AugAssign(self, node) -> None:
        start, end = self._span(node.target)[1], self._span(node.value)[0]
        old, new = PYTHON.get(type(node.op), ("", ""))
        if old and (at := self.text.find(f"{old}=", start, end)) >= 0:
            self._add("arithmetic", at, at + len(old) + 1, f"{new}=")
        self.generic_visit(node)

    def visit_Compare(self, node) -> None:
        for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            self._operator(op, self._span(left)[1], self._span(right)[0])
        self.generic_visit(node)

    def visit_BoolOp(self, node) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._operator(node.op, self._span(left)[1], self._span(right)[0])
        self.generic_visit(node)

    def visit_UnaryOp(self, node) -> None:
        start = self._span(node)[0]                         # an operand may be in brackets, which stay
        if isinstance(node.op, ast.Not):
            self._add("comparison", start, start + len("not "), "")
        elif isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            self._add("arithmetic", start, start + len("-"), "")
        self.generic_visit(node)

    def visit_Subscript(self, node) -> None:
        self.visit(node.value)
        self._in_index += 1
        self.visit(node.slice)
        self._in_index -= 1

    def visit_Constant(self, node) -> None:
        kind, value = "index" if self._in_index else "constant", node.value
        if isinstance(value, bool):
            self._add(kind, *self._span(node), str(not value))
        elif isinstance(value, int):
            self._add(kind, *self._span(node), str(value + 1))
        elif isinstance(value, float):
            self._add(kind, *self._span(node), repr(2 * value or 1.0))

    def visit_Expr(self, node) -> None:
        if isinstance(node.value, ast.Call) and _name(node.value) not in SAYS:
            self._add("deleted call", *self._span(node), "pass")
        self.generic_visit(node)

    def visit_Call(self, node) -> None:
        if _name(node) not in SAYS:
            self.generic_visit(node)


def _name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


# ---- CUDA C++
OPERATOR = re.compile(r"(?<= )(?:<=|>=|==|!=|&&|\|\||\+=|-=|\*=|[-+*/%<>&|])(?= )")
NUMBER = re.compile(r"(?<![\w.\"#])(\d+)(?=[^\w.\"]|u\b)")
CALL = re.compile(r"^[ \t]+((?!(?:return|if|for|else|while|switch)\b)\w+(?:<\w+>)?\([^;{}]*\);)[ \t]*$", re.MULTILINE)


TEXT = r'"(?:\\.|[^"\n])*"'
NO_CODE = re.compile(rf"//[^\n]*|/\*.*?\*/|\basm\b(?:{TEXT}|[^;\"])*;|{TEXT}|^[ \t]*#(?:\\\n|[^\n])*|template <[^>]*>"
                     r"|static_assert[^;]*;|__launch_bounds__\([^)]*\)", re.DOTALL | re.MULTILINE)


def _cuda(text: str) -> Iterator[Mutant]:
    code = _without_comments(text)
    for match in OPERATOR.finditer(code):
        kind = "comparison" if match[0] in COMPARISONS else "arithmetic"
        yield _mutant(text, kind, *match.span(), CUDA[match[0]])
    for match in NUMBER.finditer(code):
        kind = "index" if code[match.start() - 1] == "[" else "constant"
        yield _mutant(text, kind, *match.span(1), str(int(match[1]) + 1))
    for match in CALL.finditer(code):
        yield _mutant(text, "deleted call", *match.span(1), ";")


def _without_comments(text: str) -> str:
    """Comments, preprocessor lines, assembly and texts as spaces; every other character keeps its place."""
    return NO_CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
