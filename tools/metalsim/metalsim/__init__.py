"""Runs Metal kernels on a Linux CPU, with checks. See ../README.md."""

from .build import build, runtime, typecheck
from .errors import CompileError, Fault, ToolError
from .library import Library, compile
from .memory import address
from .mutants import mutants
from .toolchain import clang

__all__ = [
    "CompileError",
    "Fault",
    "Library",
    "ToolError",
    "address",
    "build",
    "clang",
    "compile",
    "mutants",
    "runtime",
    "typecheck",
]
