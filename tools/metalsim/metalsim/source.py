"""Finds in Metal text what C++ and CUDA say differently: kernels, their parameters, instantiations, declarations.

Works on flattened text (see flatten.py): no comments, no macros, only line markers.
"""

import re
from dataclasses import dataclass

BUILTINS = frozenset(
    [
        "thread_position_in_grid",
        "thread_position_in_threadgroup",
        "threadgroup_position_in_grid",
        "threads_per_threadgroup",
        "threads_per_grid",
        "threadgroups_per_grid",
        "thread_index_in_threadgroup",
        "thread_index_in_simdgroup",
        "simdgroup_index_in_threadgroup",
        "simdgroups_per_threadgroup",
        "threads_per_simdgroup",
        "quadgroup_index_in_threadgroup",
        "thread_index_in_quadgroup",
    ]
)

_MARK = r"(?:\[\[\s*kernel\b[^\]]*\]\]|\bkernel\b)"
KERNEL = re.compile(rf"{_MARK}\s*(?:\[\[[^\]]*\]\]\s*)*void\s+(\w+)\s*\(")
INSTANTIATION = re.compile(
    r'\btemplate\s*\[\[\s*host_name\s*\(\s*((?:"[^"]*"\s*)+)\)\s*\]\]\s*' + _MARK + r"\s*decltype\s*\("
)
FUNCTION_CONSTANT = re.compile(r"\bconstant\s+(\w+)\s+(\w+)\s*\[\[\s*function_constant\s*\(\s*(\d+)\s*\)\s*\]\]\s*;")
# indentation, alignas, type, declarators. Pointers and function parameters do not match.
THREADGROUP_VARIABLE = re.compile(
    r"(?<=[;{}\n])(\s*)((?:alignas\([^)]*\)\s*)?)threadgroup\s+"
    r"((?:[\w:]+(?:<[^;{}]*?>)?\s+)+)([^;{}()*&]*?(?:\[[^;{}]*\])?)\s*;"
)
LINE_MARKER = re.compile(r"^#.*$", re.MULTILINE)


def closing(text: str, start: int, pair: str = "()") -> int:
    """The index of the bracket that closes the one at or after `start`."""
    depth, i = 0, start
    while i < len(text):
        if text[i] == '"':
            i = text.index('"', i + 1)
        elif text[i] == pair[0]:
            depth += 1
        elif text[i] == pair[1]:
            depth -= 1
            if depth == 0:
                return i
        i += 1
    raise SyntaxError(f"no {pair[1]!r} closes this: {text[start : start + 60]!r}")


def split_commas(text: str) -> list[str]:
    """Splits at the commas outside of all brackets."""
    parts, depth, part = [], 0, ""
    for c in text:
        depth += (c in "([{<") - (c in ")]}>")
        if c == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += c
    return [*parts, part] if part.strip() else parts


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel. kind: "buffer", "threadgroup" or "builtin" (whose name is in `builtin`)."""

    kind: str
    index: int
    builtin: str
    name: str
    declaration: str  # without attributes, on one line


@dataclass(frozen=True)
class Kernel:
    """A kernel function's definition; positions are indices into the text it was found in."""

    name: str
    parameters: list[Parameter]
    is_template: bool
    start: int  # of `kernel` or [[kernel]]
    open_parenthesis: int
    close_parenthesis: int
    body: int  # of its {
    max_threads: int | None  # [[max_total_threads_per_threadgroup(n)]]


@dataclass(frozen=True)
class Instantiation:
    """`template [[host_name("name")]] [[kernel]] decltype(f<T>) f<T>;`"""

    host_name: str
    function: str  # f
    expression: str  # f<T>
    start: int
    end: int  # of its ;


def parameters(text: str) -> list[Parameter]:
    """Those between a kernel's parentheses. SyntaxError when one has no attribute that says where it comes from."""
    found = []
    for part in split_commas(LINE_MARKER.sub("", text)):
        attributes = " ".join(re.findall(r"\[\[(.*?)\]\]", part, re.DOTALL))
        declaration = " ".join(re.sub(r"\[\[.*?\]\]", "", part, flags=re.DOTALL).split())
        name = re.split(r"[\s*&]+", declaration.split("[")[0].strip())[-1]
        builtin = next((word for word in re.findall(r"\w+", attributes) if word in BUILTINS), "")
        buffer = re.search(r"\bbuffer\s*\(\s*(\d+)", attributes)
        threadgroup = re.search(r"\bthreadgroup\s*\(\s*(\d+)", attributes)
        if builtin:
            found.append(Parameter("builtin", 0, builtin, name, declaration))
        elif buffer:
            found.append(Parameter("buffer", int(buffer[1]), "", name, declaration))
        elif threadgroup:
            found.append(Parameter("threadgroup", int(threadgroup[1]), "", name, declaration))
        else:
            raise SyntaxError(f"kernel parameter without [[buffer(n)]] or another known attribute: {declaration!r}")
    return found


def kernels(text: str) -> dict[str, Kernel]:
    """All kernel functions by name."""
    found = {}
    for match in KERNEL.finditer(text):
        end = closing(text, match.end() - 1)
        before = re.split(r"[;}]", text[max(0, match.start() - 600) : match.start()])[-1]
        limit = re.search(r"max_total_threads_per_threadgroup\s*\(\s*(\d+)", before + match[0])
        found[match[1]] = Kernel(
            match[1],
            parameters(text[match.end() : end]),
            "template" in before,
            match.start(),
            match.end() - 1,
            end,
            text.index("{", end),
            int(limit[1]) if limit else None,
        )
    return found


def instantiations(text: str) -> list[Instantiation]:
    """All explicit instantiations with a host_name, in their order."""
    found = []
    for match in INSTANTIATION.finditer(text):
        close = closing(text, match.end() - 1)
        expression = " ".join(text[match.end() : close].split())
        function = re.match(r"(?:::)?(?:\w+::)*(\w+)", expression)
        if not function:
            raise SyntaxError(f"not an instantiation of a kernel: {expression!r}")
        host_name = "".join(re.findall(r'"([^"]*)"', match[1]))
        found.append(Instantiation(host_name, function[1], expression, match.start(), text.index(";", close)))
    return found


def host_names(text: str) -> list[tuple[str, str]]:
    """(host_name, C++ expression) of everything that can be launched: instantiations, then plain kernels."""
    plain = [(name, name) for name, kernel in kernels(text).items() if not kernel.is_template]
    return [(one.host_name, one.expression) for one in instantiations(text)] + plain


def line_of(text: str, index: int) -> str:
    """ "file:line" of a position, by the line markers before it."""
    name, line, start = "kernel", 1, 0
    for match in re.finditer(r'^# (\d+) "([^"]*)".*\n', text[:index], re.MULTILINE):
        name, line, start = match[2], int(match[1]), match.end()
    return f"{name}:{line + text.count(chr(10), start, index)}"
