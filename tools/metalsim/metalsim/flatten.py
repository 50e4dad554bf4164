"""One flat Metal text out of a kernel file: macros expanded, comments gone, lines still known by markers."""

import re
from collections.abc import Sequence
from pathlib import Path

from . import toolchain
from .errors import CompileError

_STANDARD_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<metal_\w+>[^\n]*$", re.MULTILINE)


def read(path_or_text: str | Path) -> tuple[str, str]:
    """(text, the name to show for it). A string with a line break in it is text, any other the path of a file."""
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        return path_or_text, "kernel.metal"
    path = Path(path_or_text)
    return path.read_text(encoding="utf-8"), path.name


def flatten(
    text: str,
    name: str,
    defines: Sequence[str] = (),
    include: Sequence[str | Path] = (),
    compiler: str | None = None,
) -> str:
    """Preprocesses as Metal's compiler would. CompileError when an #include is not found or an #error is met.

    compiler: any g++ or clang++; None for the clang that the simulator compiles with. Results differ in
    blank lines, and markers instead of them, at most.
    """
    text = _STANDARD_INCLUDE.sub("", text)  # the shim has it all
    command = [compiler or toolchain.clang(), "-E", "-x", "c++", "-undef", "-nostdinc", "-nostdinc++"]
    command += ["-D__METAL__=1", "-D__METAL_VERSION__=310", *[f"-D{define}" for define in defines]]
    for folder in include:
        command += ["-I", str(folder)]
    begin = f'# 1 "{name}"\n'
    done = toolchain.run([*command, "-"], begin + text)
    if done.returncode:
        raise CompileError(done.stderr)
    return done.stdout[done.stdout.rindex(begin) :]  # before it: what compilers call their input
