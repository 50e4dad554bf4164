"""Runs hand-written CUDA kernels (kernels/cuda) on a CPU: see README.md."""

import ctypes
import hashlib
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE.parent / "metalsim"))

from embed_kernels import cuda_parts  # noqa: E402
from metalsim import toolchain  # noqa: E402
from metalsim.build import compile_to  # noqa: E402
from metalsim.errors import CompileError  # noqa: E402

HEADERS = ("runtime.h", "cuda.h", "ptx.h", "../metalsim/runtime/fiber_switch.h")

# What an asm statement says, its white space made one, and the function of ptx.h that does it.
PTX = {
    "griddepcontrol.wait;": "nothing",
    "griddepcontrol.launch_dependents;": "nothing",
    "prefetch.global.L2 [%0];": "prefetch",
    "cvt.f32.f16 %0, %1;": "half",
    "cvt.rn.bf16x2.f32 %0, %1, %2;": "bfloats",
    "fma.rn.bf16x2 %0, %1, %2, %3;": "fma_bfloats",
    "mov.u32 %0, 0x43004300;": "two_128s",
    "lop3.b32 %0, %1, 0x000F000F, %2, 0xEA;": "nibbles",
    "ex2.approx.ftz.f32 %0, %1;": "exp2",
    "{.reg .pred there; setp.ne.s32 there, %5, 0; "
    "@there ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];}": "read_once",
    "{.reg .pred there; setp.ne.s32 there, %2, 0; @there ld.global.nc.u32 %0, [%1];}": "read_u32",
    "{.reg .pred there; setp.ne.s32 there, %2, 0; @there ld.global.nc.u16 %0, [%1];}": "read_u16",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
    "{%0, %1, %2, %3};": "mma",
    "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;": "cluster_barrier",
    "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;": "cluster_barrier",
    "mapa.shared::cluster.u32 %0, %0, %1;": "mapa",
    "ld.shared::cluster.f32 %0, [%1];": "load_cluster",
}

_COMPILER = ["g++", "-std=c++20", "-O1", "-fPIC", "-pthread", "-w", "-ffp-contract=off", "-fno-strict-aliasing"]
# Misaligned vector accesses stop a GPU; here they trap.
_COMPILER += ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]


class Fault(RuntimeError):  # noqa: N818
    """What a kernel did wrong, and which thread."""


def why_not() -> str:
    """Why nothing can run here, or an empty string."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "cudasim runs on Linux on x86-64 only"
    return "" if shutil.which("g++") else "cudasim compiles kernels with g++, which is not installed"


def _split(text: str, at: str) -> Iterator[str]:
    """`text` at the characters `at` that are in no brackets and no literal."""
    depth, quoted, start, i = 0, False, 0, 0
    while i < len(text):
        c = text[i]
        if quoted:
            if c == "\\":
                i += 1
            quoted = c != '"'
        elif depth == 0 and c == at:
            yield text[start:i]
            start = i + 1
        elif c == '"':
            quoted = True
        else:
            depth += (c in "([{") - (c in ")]}")
        i += 1
    yield text[start:]


def _asm_to_call(inside: str) -> str:
    # `::` and `:::` are empty lists of operands.
    spaced = re.sub(r'("(?:[^"\\]|\\.)*")|::', lambda m: m[1] or ": :", inside)
    parts = list(_split(spaced, ":"))
    said = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', parts[0])).replace("\\n", " ")
    name = PTX.get(" ".join(said.split()))
    if name is None:
        raise CompileError(f"expected an instruction that ptx.h has, got asm {said!r}")
    operands = []
    for part in parts[1:3]:
        for operand in _split(part, ","):
            match = re.fullmatch(r'\s*"[^"]*"\s*\((.*)\)\s*', operand, flags=re.DOTALL)
            if match:
                operands.append(match[1])
            elif operand.strip():
                raise CompileError(f"expected an operand, got {operand!r}")
    return f"ptx_{name}({', '.join(operands)})"


def translate(text: str) -> str:
    """CUDA's text as C++: asm statements become calls."""
    out, at = [], 0
    for match in re.finditer(r"\basm\s*(volatile)?\s*\(", text):
        inside = next(_split(text[match.end() :], ")"))
        out += [text[at : match.start()], _asm_to_call(inside)]
        at = match.end() + len(inside) + 1
    return "".join([*out, text[at:]])


class Library:
    """Kernels, compiled."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.cudasim_run.restype = ctypes.c_char_p
        self._names = names

    def run(
        self,
        name: str,
        arguments: list[np.ndarray | bytes],
        grid: tuple[int, int, int] = (1, 1, 1),
        threads: int = 32,
        cluster: int = 1,
        order: int = 0,
    ) -> None:
        """Arrays are passed as pointers to them, and written in place where they are writeable; bytes by value.
        `cluster`: blocks of one, along x. `order`: of threads, 0 forward, 1 reverse, others shuffle. Raises Fault."""
        if name not in self._names:
            raise KeyError(name)
        if threads < 1 or threads % 32 or grid[0] % cluster:
            raise ValueError(f"expected whole warps and clusters, got {threads} threads, a grid of {grid}")
        memories = [_Memory(a) if isinstance(a, np.ndarray) else None for a in arguments]
        try:
            values = []
            for a, memory in zip(arguments, memories, strict=True):
                raw = a if memory is None else memory.address.to_bytes(8, "little")
                values.append(ctypes.create_string_buffer(raw, len(raw)))
            pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
            kernel = ctypes.cast(getattr(self._library, f"cudasim_call_{name}"), ctypes.c_void_p)
            fault = self._library.cudasim_run(kernel, pointers, (ctypes.c_uint * 3)(*grid), threads, cluster, order)
        finally:
            for memory in memories:
                if memory is not None:
                    memory.close()
        if fault:
            raise Fault(f"{name}: {fault.decode()}")


_libc = ctypes.CDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_PAGE = 4096
_READ, _WRITE, _PRIVATE, _ANONYMOUS = 1, 2, 2, 32


class _Memory:
    """An array's copy for one launch. It ends where memory ends, within 16 bytes, and can be written to if the array
    can."""

    def __init__(self, array: np.ndarray) -> None:
        if not array.flags.c_contiguous:
            raise ValueError("expected a contiguous array")
        self._array = array
        room = (array.nbytes + 15) // 16 * 16
        self._size = (room + _PAGE - 1) // _PAGE * _PAGE
        self._base = _libc.mmap(None, self._size + _PAGE, _READ | _WRITE, _PRIVATE | _ANONYMOUS, -1, 0)
        self.address = self._base + self._size - room
        ctypes.memmove(self.address, array.ctypes.data, array.nbytes)
        if not array.flags.writeable:
            _libc.mprotect(self._base, self._size, _READ)
        _libc.mprotect(self._base + self._size, _PAGE, 0)

    def close(self) -> None:
        if self._array.flags.writeable:
            ctypes.memmove(self._array.ctypes.data, self.address, self._array.nbytes)
        _libc.munmap(self._base, self._size + _PAGE)


def _build(text: str, more: list[str], ending: str) -> Path:
    """What the compiler makes of it, from the cache if it is there."""
    headers = [(HERE / name).read_text(encoding="utf-8") for name in HEADERS]
    digest = hashlib.sha256("\0".join([*_COMPILER, *more, *headers, text]).encode()).hexdigest()[:24]
    built = toolchain.cache("cudasim") / f"{digest}{ending}"
    if not built.exists():
        compile_to([*_COMPILER, f"-I{HERE}", "-xc++", "-", "-xnone", *more], built, text)
    return built


def compile(path: Path | str, names: list[str] | None = None) -> Library:
    """The kernels of a .cu file, or those of them in `names`. CompileError."""
    shared, kernels = cuda_parts(Path(path))
    names = list(kernels) if names is None else list(names)
    text = "\n".join(
        [
            '#include "cuda.h"',
            translate("\n".join([shared, *(kernels[name] for name in names)])),
            *(f'extern "C" void cudasim_call_{n}(void** a) {{ cudasim::call({n}, a); }}' for n in names),
        ]
    )
    runtime = _build((HERE / "runtime.cpp").read_text(encoding="utf-8"), ["-c"], ".o")
    return Library(_build(text, ["-shared", str(runtime)], ".so"), names)
