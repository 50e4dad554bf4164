"""Writes the C++ files that hold kernels/*.metal, as they are and translated to CUDA C++, beside kernels/cuda/*.cu; and
kernels/tuning/*.json. A step of the build.

    python tools/embed_kernels.py --compiler CXX --out FOLDER [FILE ...]

CXX is the build's g++ or clang++, here only a preprocessor. Needs nothing but Python's own library.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "metalsim"))

from metalsim import CompileError, to_cuda  # noqa: E402

_KERNELS = "// Kernels:\n"

_CAPABILITY = 80  # of those in kernels/cuda that do not say more: tensor cores that know bfloat

_TABLES = """// tuning_tables.cpp: written by tools/embed_kernels.py.
#include "gpu/tuning.h"

namespace personaplex::gpu {{

std::vector<std::pair<std::string, std::string>> tuning_tables() {{
  return {{
{entries}
  }};
}}

}}  // namespace personaplex::gpu
"""

_FILE = """// {name}: written by tools/embed_kernels.py.
#include "gpu/kernel_source.h"

namespace personaplex::gpu {{

{constants}std::vector<{kind}> {function}() {{
  return {{
{entries}
  }};
}}

}}  // namespace personaplex::gpu
"""


def literal(text: str) -> str:
    """A raw string literal."""
    mark = "msl"
    while f"){mark}" in text:
        mark += "_"
    return f'R"{mark}({text}){mark}"'


def cpp(name: str, kind: str, function: str, entries: Iterable[str], constants: str = "") -> str:
    """A file that defines `function`, which returns a vector of `kind`."""
    return _FILE.format(name=name, kind=kind, function=function, entries=",\n".join(entries), constants=constants)


def common_start(texts: list[str]) -> str:
    """The whole lines with which all texts begin."""
    first, last = min(texts, default=""), max(texts, default="")
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rfind("\n", 0, same) + 1]


def with_includes(path: Path, seen: set[Path]) -> str:
    """A file's text, and in it once what it includes."""
    if path in seen:
        return ""
    seen.add(path)
    text = re.sub(r"^#pragma once\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    return re.sub(r'^#include "(.+)"$', lambda m: with_includes(path.parent / m[1], seen), text, flags=re.MULTILINE)


def cuda_parts(path: Path) -> tuple[str, dict[str, str]]:
    """What the kernels of a .cu file share, with what it includes, and the lines after `// Kernels:`, each of which
    defines the kernel that its first argument names. CompileError for any other line there."""
    shared, mark, lines = with_includes(path, set()).partition(_KERNELS)
    kernels = {}
    for line in lines.strip().split("\n") if mark else []:
        match = re.fullmatch(r"[A-Z_]+\((\w+)[,)].*", line)
        if match is None or line.endswith(";"):
            raise CompileError(f"{path.name}: expected MACRO(HOST_NAME, ...) after {_KERNELS.strip()}, got {line}")
        kernels[match[1]] = line
    if not kernels:
        raise CompileError(f"{path.name}: expected kernels after a line {_KERNELS.strip()}")
    return shared, kernels


def cuda_capability(shared: str) -> int:
    """That a GPU must have for a .cu file, 90 for 9.0."""
    needs = re.search(r"^// Compute capability (\d+)\.(\d)\.$", shared, flags=re.MULTILINE)
    return int(needs[1] + needs[2]) if needs else _CAPABILITY


def embed(files: list[Path], compiler: str, out: Path) -> None:
    """Writes metal_sources.cpp and cuda_sources.cpp. CompileError for a kernel that cannot be translated."""
    written = [path for path in files if path.suffix == ".cu"]
    files = [path for path in files if path.suffix != ".cu"]
    translated = {path: to_cuda(path, compiler=compiler) for path in files}
    names = {path: ", ".join(f'"{name}"' for name in source.names) for path, source in translated.items()}
    metal = [f'{{"{path.name}", {literal(path.read_text(encoding="utf-8"))}, {{{names[path]}}}}}' for path in files]

    parts = {path: source.parts() for path, source in translated.items()}
    header = common_start([shared for shared, _ in parts.values()])  # 24 KB that need not be there for every file
    cuda = []

    def add(path: Path, text: str, functions: dict[str, str], more: str = "") -> None:
        kernels = ",\n".join(f'{{"{name}", {literal(function)}}}' for name, function in functions.items())
        cuda.append(f'{{"{path.name}", {text}, {{\n{kernels}}}{more}}}')

    for path, (shared, functions) in parts.items():
        add(path, f"kHeader + {literal(shared[len(header) :])}", functions)
    for path in written:
        shared, functions = cuda_parts(path)
        add(path, literal(shared), functions, f", {cuda_capability(shared)}")

    out.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "metal_sources.cpp": cpp("metal_sources.cpp", "MetalSource", "metal_sources", metal),
        "cuda_sources.cpp": cpp(
            "cuda_sources.cpp",
            "CudaSource",
            "cuda_sources",
            cuda,
            f"static const std::string kHeader = {literal(header)};\n\n",
        ),
    }.items():
        (out / name).write_text(text, encoding="utf-8")


def embed_tables(files: list[Path], out: Path) -> None:
    """Writes tuning_tables.cpp. ValueError for a table that is no JSON."""
    entries = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        try:
            json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        entries.append(f'{{"{path.stem}", {literal(text)}}}')
    (out / "tuning_tables.cpp").write_text(_TABLES.format(entries=",\n".join(entries)), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("*.metal", "cuda/*.cu", "tuning/*.json")
    every = [path for kind in kinds for path in sorted((ROOT / "kernels").glob(kind))]
    parser.add_argument("files", nargs="*", type=Path, default=every)
    parser.add_argument("--compiler", required=True, help="a g++ or clang++")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    args = parser.parse_args()
    try:
        embed([path for path in args.files if path.suffix != ".json"], args.compiler, args.out)
        embed_tables([path for path in args.files if path.suffix == ".json"], args.out)
    except (CompileError, SyntaxError, ValueError) as error:
        print(f"embed_kernels.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
