"""Metal text to CUDA C++ for nvcc and NVRTC. Bodies and helpers stay as they are, line by line.

Each kernel becomes a device function of the same parameters, and each host_name a `extern "C" __global__` function
that calls it: its parameters are the buffers in the order of the text, references (`constant Params&`) by value. One
[[threadgroup(n)]] parameter gets the dynamic shared memory. Words that mean address spaces are erased from the text:
macros for `device` and `constant` would destroy CUDA's own __device__ and __constant__.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import source, toolchain
from .build import compile_cpp
from .errors import CompileError
from .flatten import flatten, read
from .library import Library
from .rewrite import Constants, constant_value

FOLDER = toolchain.ROOT / "cuda"
_FUNCTIONS = '\n#line 1 "the __global__ functions"\n'  # one a line from here on
_HEADERS = ("types", "simd", "math", "kernel")  # of msl_cuda.h, in its order
_SWIZZLE = re.compile(r"\.([xyzw]{2,4})\b(?!\s*\()")


@dataclass(frozen=True)
class CudaSource:
    """text: a translation unit that needs no other file. names: the C symbol of the kernel of each host_name."""

    text: str
    names: dict[str, str]

    def parts(self) -> tuple[str, dict[str, str]]:
        """What the kernels share, and for each host_name the rest of a translation unit that has this kernel only."""
        shared, _, functions = self.text.partition(_FUNCTIONS)
        *lines, end = functions.strip().split("\n")
        return shared + _FUNCTIONS, {name: f"{line}\n{end}\n" for name, line in zip(self.names, lines, strict=True)}


@dataclass(frozen=True)
class _Translation:
    text: str
    names: dict[str, str]
    memory: dict[str, list[source.Parameter]]  # of each host_name: its buffers and threadgroup memory


def _wrapper(symbol: str, expression: str, kernel: source.Kernel, awaits: bool) -> str:
    """awaits: the kernel itself says when it needs what those before it wrote."""
    kind = f"decltype(&{expression})"
    declared, arguments = [], []
    for i, parameter in enumerate(kernel.parameters):
        if parameter.kind == "builtin":
            arguments.append(f"msl_cuda::builtin<msl_cuda::at<{kind}, {i}>>(msl_cuda::{parameter.builtin}())")
        elif parameter.kind == "threadgroup":
            arguments.append(f"(msl_cuda::at<{kind}, {i}>)msl_cuda::dynamic_shared()")
        else:
            by_value = "MSL_GRID_CONSTANT " if "&" in parameter.declaration else ""
            declared.append(f"{by_value}msl_cuda::passed<{kind}, {i}> {parameter.name}")
            arguments.append(parameter.name)
    bounds = f"__launch_bounds__({kernel.max_threads}) " if kernel.max_threads else ""
    begin = "msl_cuda::begin_kernel(); " + ("" if awaits else "msl_cuda::await_inputs(); ")
    return (
        f'extern "C" __global__ {bounds}void {symbol}({", ".join(declared)}) {{ '
        f"{begin}{expression}({', '.join(arguments)}); }}"
    )


def _translate(text: str, constants: Constants) -> _Translation:
    kernels = source.kernels(text)
    for kernel in kernels.values():
        if sum(p.kind == "threadgroup" for p in kernel.parameters) > 1:
            raise CompileError(
                f"{kernel.name}: CUDA has one dynamic shared memory, so one [[threadgroup(n)]] parameter"
            )
    expressions = source.host_names(text)
    plain = {name for name, kernel in kernels.items() if not kernel.is_template}
    # The host_name belongs to the __global__ function, so a kernel that is not a template gets another name.
    names = {host_name: host_name for host_name, _ in expressions}

    text = source.INSTANTIATION.sub(lambda m: "\0" + "\n" * m[0].count("\n"), text)
    text = re.sub("\0" + r"[^;]*;", lambda m: "\n" * m[0].count("\n"), text)
    text = source.KERNEL.sub(
        lambda m: f"MSL_D void {'msl_' if m[1] in plain else ''}{m[1]}(" + "\n" * m[0].count("\n"), text
    )
    text = re.sub(
        source.THREADGROUP_VARIABLE.pattern, lambda m: f"{m[1]}{m[2]}__shared__ {m[3]}{m[4]};", text
    )  # before `threadgroup` is erased
    text = source.FUNCTION_CONSTANT.sub(
        lambda m: f"constexpr {m[1]} {m[2]} = {constant_value(m[2], int(m[3]), constants)};", text
    )
    text = re.sub(r"\[\[.*?\]\]", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    text = re.sub(
        r"^((?:static\s+)?)constant\s+(?=[^()=;]*\[[^;]*\{)", r"\1__constant__ const ", text, flags=re.MULTILINE
    )
    text = text.replace("__constant__ const constexpr ", "__constant__ constexpr ")

    def words(match: re.Match[str]) -> str:
        line = re.sub(r"\bconstant\b", "const", match[0])
        return _SWIZZLE.sub(r".\1()", re.sub(r"\b(?:device|thread|threadgroup)\b ?", "", line))

    text = re.sub(r"^(?!#).*$", words, text, flags=re.MULTILINE)
    text = re.sub(r'^# (\d+) ("[^"]*").*$', r"#line \1 \2", text, flags=re.MULTILINE)

    memory, wrappers = {}, []
    awaits = "msl_cuda::await_inputs(" in text
    if awaits and len(kernels) > 1:
        raise CompileError("AWAIT_INPUTS() stands in a file of several kernels: those without it would never wait")
    for host_name, expression in expressions:
        kernel = kernels[re.sub(r"<.*", "", expression.split("::")[-1], flags=re.DOTALL).strip()]
        wrappers.append(_wrapper(host_name, f"msl_{expression}" if expression in plain else expression, kernel, awaits))
        memory[host_name] = [p for p in kernel.parameters if p.kind != "builtin"]
    # In a namespace inside of metal, so that ::exp and its like from <cmath> do not compete with metal::exp.
    text = "namespace metal::kernels {\n" + text + _FUNCTIONS + "\n".join(wrappers)
    return _Translation(text + "\n}  // namespace metal::kernels\n", names, memory)


def _flat(
    path_or_text: str | Path, defines: Sequence[str], include: Sequence[str | Path], compiler: str | None = None
) -> str:
    text, name = read(path_or_text)
    return flatten(text, name, [*defines, "METALSIM_CUDA=1"], include, compiler)


def to_cuda(
    path_or_text: str | Path,
    constants: Constants | None = None,
    defines: Sequence[str] = (),
    include: Sequence[str | Path] = (),
    compiler: str | None = None,
) -> CudaSource:
    """Translates a kernel file or text; METALSIM_CUDA is defined in it. CompileError when it cannot be.

    compiler: a g++ or clang++ to preprocess with; None for the simulator's clang.
    """
    done = _translate(_flat(path_or_text, defines, include, compiler), constants or {})
    parts = [(FOLDER / f"msl_cuda_{part}.h").read_text(encoding="utf-8") for part in _HEADERS]
    header = re.sub(r'^#(?:pragma once|include ".*")\n', "", "".join(parts), flags=re.MULTILINE)
    return CudaSource(header + done.text, done.names)


def compile_cuda(
    path_or_text: str | Path,
    constants: Constants | None = None,
    defines: Sequence[str] = (),
    include: Sequence[str | Path] = (),
) -> Library:
    """The translated text on the simulator, unchecked: a test of the translation that needs no GPU."""
    done = _translate(_flat(path_or_text, defines, include), constants or {})
    entries = []
    for number, (host_name, memory) in enumerate(done.memory.items()):
        buffers = [p for p in memory if p.kind == "buffer"]
        kinds = [f"msl::Signature<decltype(&{host_name})>::at<{i}>" for i in range(len(buffers))]
        arguments = ", ".join(f"msl::buffer<{k}>(c.buffers[{p.index}])" for k, p in zip(kinds, buffers, strict=True))
        table = [f'msl::describe<{k}>("{p.name}", {p.index}, false)' for k, p in zip(kinds, buffers, strict=True)]
        table += [f'msl::Parameter{{"{p.name}", {p.index}, true, false, 0}}' for p in memory if p.kind == "threadgroup"]
        entries.append(
            f"static void run_{number}(const msl::ThreadContext& c) {{ {host_name}({arguments}); }}\n"
            f"static const msl::Parameter parameters_{number}[] = {{{', '.join(table)}}};\n"
            f'static msl::Registration entry_{number}({{"{host_name}", run_{number}, '
            f"parameters_{number}, {len(table)}}});"
        )
    text = f'#include "cuda_on_cpu.h"\n#include "msl_cuda.h"\n{done.text}\nusing namespace metal::kernels;\n'
    return Library(compile_cpp(text + "\n".join(entries) + "\n", False, ["-I", str(FOLDER)]))
