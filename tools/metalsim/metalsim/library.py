"""Compiled kernels, run on numpy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .build import build
from .errors import Fault, ToolError
from .memory import lib
from .rewrite import Constants

if TYPE_CHECKING:  # a build translates kernels where there is no numpy
    import numpy as np

_ORDERS = {"forward": 0, "reverse": 1, "shuffle": 2}


@dataclass(frozen=True)
class Record:
    """What a launch touched of device memory: sorted address ranges [begin, end) with gaps between them."""

    read: list[tuple[int, int]]
    written: list[tuple[int, int]]


class Library:
    """The kernels of one compiled text."""

    def __init__(self, path: Path) -> None:
        """path: a shared object made by metalsim.build."""
        handle = ctypes.c_void_p()
        wrong = lib().metalsim_load(str(path).encode(), ctypes.byref(handle))
        if wrong:
            raise ToolError(wrong.decode())
        self.path = path
        self._handle = handle
        self._names = lib().metalsim_names(handle).decode().split()

    def names(self) -> list[str]:
        """The host_names of all kernels."""
        return list(self._names)

    def run(
        self,
        name: str,
        buffers: Sequence[np.ndarray | bytes | None],
        groups: tuple[int, ...] | int = 1,
        threads: tuple[int, ...] | int = 32,
        order: str = "forward",
        threadgroup_bytes: Sequence[int] = (),
        record: bool = False,
    ) -> Record | None:
        """Runs a kernel on `groups` threadgroups of `threads` threads.

        buffers: what is bound at [[buffer(0)]], [[buffer(1)]], ... Arrays are used where they are and must be
        C-contiguous; those that are not writeable, and bytes, are read-only. None leaves an index unbound.
        order: in which threads and threadgroups are taken up: "forward", "reverse" or "shuffle:SEED".
        threadgroup_bytes: the lengths of [[threadgroup(0)]], ...
        record: return what was read and written, which takes a library compiled with checks.
        Raises Fault, and then the arrays hold whatever had been written by then.
        """
        import numpy as np

        if name not in self._names:
            raise ValueError(f"[Library.run] no kernel {name!r}, only {', '.join(self._names)}.")
        kind, _, seed = order.partition(":")
        if kind not in _ORDERS or (seed and not seed.isdecimal()):
            raise ValueError(f'[Library.run] expected order "forward", "reverse" or "shuffle:SEED", got {order!r}.')
        kept = []  # alive until the launch is over
        for i, buffer in enumerate(buffers):
            array = np.frombuffer(buffer, np.uint8) if isinstance(buffer, bytes) else buffer
            if array is not None and not array.flags.c_contiguous:
                raise ValueError(f"[Library.run] buffer {i} of {name} is not C-contiguous: make a copy that is.")
            if isinstance(buffer, bytes) and array is not None:
                aligned = np.zeros(array.nbytes // 16 + 1, np.complex128).view(np.uint8)[: array.nbytes]
                aligned[:] = array
                aligned.flags.writeable = False
                array = aligned
            kept.append(array)
        n = len(kept)
        bases = (ctypes.c_void_p * n)(*[None if a is None else a.ctypes.data for a in kept])
        sizes = (ctypes.c_size_t * n)(*[0 if a is None else a.nbytes for a in kept])
        read_only = (ctypes.c_int * n)(*[int(a is not None and not a.flags.writeable) for a in kept])
        grid = (ctypes.c_uint * 3)(*_triple(groups))
        group = (ctypes.c_uint * 3)(*_triple(threads))
        lengths = (ctypes.c_size_t * len(threadgroup_bytes))(*threadgroup_bytes)
        fault = lib().metalsim_launch(
            self._handle, name.encode(), n, bases, sizes, read_only, grid, group, lengths, len(threadgroup_bytes),
            _ORDERS[kind], ctypes.c_uint(int(seed or 0)), int(record),
        )  # fmt: skip
        if fault:
            raise Fault(fault.decode(errors="replace"))
        return Record(_ranges(written=False), _ranges(written=True)) if record else None


def _ranges(written: bool) -> list[tuple[int, int]]:
    count = ctypes.c_size_t()
    first = lib().metalsim_ranges(int(written), ctypes.byref(count))
    return [(first[2 * i], first[2 * i + 1]) for i in range(count.value)]


def _triple(size: tuple[int, ...] | int) -> tuple[int, ...]:
    return (size, 1, 1) if isinstance(size, int) else (*size, 1, 1)[:3]


def compile(
    path_or_text: str | Path,
    check: bool = True,
    constants: Constants | None = None,
    defines: Sequence[str] = (),
    include: Sequence[str | Path] = (),
    only: Collection[str] = (),
) -> Library:
    """Compiles a kernel file, or text (a string with a line break in it), and loads it.

    check: compile with all checkers; without, several times faster. constants: values of function constants, by name
    or index. defines: "NAME=VALUE". only: the host_names wanted, for less to compile.
    CompileError with the compiler's words when the text is wrong.
    """
    return Library(build(path_or_text, check, constants, defines, include, only))
