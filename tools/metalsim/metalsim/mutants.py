"""Kernels made wrong on purpose, to see whether tests and checkers notice."""

import re
from collections.abc import Iterator

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_BARRIER = re.compile(r"\b(threadgroup_barrier|simdgroup_barrier)\s*\([^;{}]*?\)\s*;")


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """(what was done, the text) with each barrier dropped in turn. Lines keep their numbers."""
    code = _COMMENT.sub(lambda match: " " * len(match[0]), text)
    for match in _BARRIER.finditer(code):
        line = text.count("\n", 0, match.start()) + 1
        lines = "\n" * match[0].count("\n")
        yield f"{match[1]} of line {line} dropped", f"{text[: match.start()]};{lines}{text[match.end() :]}"
