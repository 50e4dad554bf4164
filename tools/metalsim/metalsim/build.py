"""Compiles kernel texts and the runtime to shared objects, each once: a hash of all that matters finds them again."""

import functools
import hashlib
import os
import platform
from collections.abc import Collection, Sequence
from pathlib import Path

from . import toolchain
from .errors import CompileError, ToolError
from .flatten import flatten, read
from .lint import lint
from .rewrite import Constants, rewrite

_QUIET = [
    "unknown-attributes",
    "duplicate-decl-specifier",
    "unused",
    "unknown-pragmas",
    "pass-failed",
    "ignored-attributes",
    "main",
    "user-defined-literals",
    "reserved-user-defined-literal",
    "undefined-inline",
    "gnu-zero-variadic-macro-arguments",
]
# MSL's arithmetic: every half operation rounds, literals without a suffix are float, nothing is contracted (Metal may,
# but then results would differ between builds).
_LANGUAGE = ["-std=c++17", *[f"-Wno-{name}" for name in _QUIET], "-Werror=return-type", "-ferror-limit=40"]
_LANGUAGE += ["-Xclang", "-ffloat16-excess-precision=none", "-Xclang", "-cl-single-precision-constant"]
_LANGUAGE += ["-ffp-contract=off", "-fno-exceptions", "-fno-strict-aliasing", "-fno-math-errno"]
_CODE = ["-fPIC", "-fvisibility=hidden", "-mno-red-zone", "-march=native"]
# clang instruments accesses of 1 to 16 bytes only, so nothing may become wider. -O1 halves the time to compile.
_CHECKS = ["-O1", "-fsanitize=thread", "-mllvm", "-tsan-instrument-func-entry-exit=0"]
_CHECKS += ["-mllvm", "-tsan-instrument-read-before-write=1", "-fno-vectorize", "-fno-slp-vectorize"]
_CHECKS += ["-mprefer-vector-width=128", "-g1", "-fsanitize=bounds,alignment,shift-exponent,integer-divide-by-zero"]


@functools.cache
def _sources(folder: Path) -> str:
    return "".join(f"{path.name}\n{path.read_text(encoding='utf-8')}" for path in sorted(folder.iterdir()))


def _key(*parts: object) -> str:
    text = "\0".join(
        map(str, (toolchain.clang(), platform.machine(), _LANGUAGE, _CODE, _CHECKS, _sources(toolchain.SHIM), *parts))
    )
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def compile_to(command: Sequence[str], output: Path, text: str | None = None) -> None:
    """Runs a compiler that writes `output`, which appears at once or not at all. CompileError, with its words."""
    unfinished = output.with_name(f"{output.name}.{os.getpid()}")
    try:
        done = toolchain.run([*command, "-o", str(unfinished)], text)
        if done.returncode:
            raise CompileError(done.stderr)
        os.replace(unfinished, output)
    finally:
        unfinished.unlink(missing_ok=True)


def runtime() -> Path:
    """The shared object of the executor and its checkers, with the C++ interface of runtime/metalsim.h."""
    output = toolchain.cache() / f"libmetalsim-{_key(_sources(toolchain.RUNTIME))}.so"
    if not output.exists():
        files = [str(path) for path in sorted(toolchain.RUNTIME.glob("*.cpp"))]
        command = [toolchain.clang(), "-std=c++20", "-O2", "-fPIC", "-shared", "-fno-strict-aliasing", *files]
        try:
            compile_to([*command, "-lpthread", "-ldl"], output)
        except CompileError as e:
            raise ToolError(f"[metalsim] the runtime does not compile:\n{e}") from None
    return output


def _kernel_side(checked: bool) -> Path:
    output = toolchain.cache() / f"kernel_side-{_key(checked)}.o"
    if not output.exists():
        command = [toolchain.clang(), "-std=c++17", "-O2", *_CODE, "-fno-exceptions", f"-DMSL_CHECKED={int(checked)}"]
        compile_to([*command, "-c", str(toolchain.SHIM / "kernel_side.cpp")], output)
    return output


def compile_cpp(text: str, checked: bool, options: Sequence[str] = ()) -> Path:
    """The library of a rewritten text, which includes its headers itself."""
    output = toolchain.cache() / f"kernels-{_key(text, checked, options, _sources(toolchain.ROOT / 'cuda'))}.so"
    if output.exists():
        return output
    part = output.with_name(f"{output.stem}.{os.getpid()}.o")  # others may be at the same text
    command = [
        toolchain.clang(),
        *_LANGUAGE,
        *_CODE,
        *options,
        *(_CHECKS if checked else ["-O2"]),
        "-I",
        str(toolchain.SHIM),
    ]
    compile_to([*command, "-x", "c++", "-c", "-"], part, text)
    link = [toolchain.clang(), "-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", str(part), str(_kernel_side(checked)), "-lm"]
    compile_to(link, output)
    part.unlink(missing_ok=True)
    return output


def build(
    path_or_text: str | Path,
    check: bool = True,
    constants: Constants | None = None,
    defines: Sequence[str] = (),
    include: Sequence[str | Path] = (),
    only: Collection[str] = (),
) -> Path:
    """The shared object of a kernel text. CompileError with the compiler's words when it is wrong."""
    text, name = read(path_or_text)
    flat = flatten(text, name, defines, include)
    lint(flat, check)
    return compile_cpp(f'#include "msl.h"\n{rewrite(flat, constants or {}, only=only)}', check, ["-DMSL_STRICT_AS=0"])


def typecheck(
    path_or_text: str | Path,
    constants: Constants | None = None,
    defines: Sequence[str] = (),
    include: Sequence[str | Path] = (),
) -> None:
    """Compiles twice, running nothing: with MSL's conversion rules, and with real address spaces.

    Each finds what the other cannot. CompileError with the compiler's words.
    """
    text, name = read(path_or_text)
    flat = flatten(text, name, defines, include)
    lint(flat, checked=False)
    for strict in (False, True):
        cpp = f'#include "msl.h"\n{rewrite(flat, constants or {}, strict)}'
        command = [toolchain.clang(), *_LANGUAGE, f"-DMSL_STRICT_AS={int(strict)}", "-I", str(toolchain.SHIM)]
        done = toolchain.run([*command, "-fsyntax-only", "-x", "c++", "-"], cpp)
        if done.returncode:
            raise CompileError(done.stderr)
