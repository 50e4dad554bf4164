"""Runs Metal kernels on a Linux CPU, with checks, and translates them to CUDA. See ../README.md."""

from .build import build, runtime, typecheck
from .cuda import CudaSource, compile_cuda, to_cuda
from .errors import CompileError, Fault, ToolError
from .library import Library, Record, compile
from .memory import address
from .mutants import mutants
from .toolchain import clang, why_not

__all__ = [
    "CompileError",
    "CudaSource",
    "Fault",
    "Library",
    "Record",
    "ToolError",
    "address",
    "build",
    "clang",
    "compile",
    "compile_cuda",
    "mutants",
    "runtime",
    "to_cuda",
    "typecheck",
    "why_not",
]
