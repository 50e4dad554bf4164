"""What C++ accepts and Metal's compiler does not, found in the text."""

import re

from . import source
from .errors import CompileError

_FORBIDDEN = [
    (re.compile(r"\bstd\s*::"), "there is no namespace std in MSL"),
    (re.compile(r"[=(,]\s*\[[&=]?\]\s*\("), "there are no lambdas in MSL"),
    (re.compile(r"\bdynamic_cast\b|\btypeid\b"), "there is no type information at run time in MSL"),
]
# Their loads are wider than any that the checkers see.
_UNCHECKED = re.compile(r"\bu?long[34]\b")


def lint(text: str, checked: bool) -> None:
    """CompileError, with file and line, for what `text` (flattened) must not have."""
    problems = [(m.start(), why) for pattern, why in _FORBIDDEN for m in pattern.finditer(text)]
    bodies = [(k.body, source.closing(text, k.body, "{}")) for k in source.kernels(text).values()]
    for match in source.THREADGROUP_VARIABLE.finditer(text):
        at = match.start(4)
        if not any(start < at < end for start, end in bodies):
            problems.append((at, "a threadgroup variable must be declared in a kernel function"))
    if checked:
        problems += [(m.start(), "32-byte vectors cannot be checked: use two of 16") for m in _UNCHECKED.finditer(text)]
    if problems:
        raise CompileError("\n".join(f"{source.line_of(text, at)}: error: {why}" for at, why in sorted(problems)))
