"""Writes csrc/gpu/cuda_sources.cpp and metal_sources.cpp: kernels/*.metal in CUDA C++ and as they are, as the core
embeds them.

    python tools/gpu/embed_kernels.py [--check]

Needs what tools/metalsim needs, which a build of the package does not have: so the files are kept in the repository.
--check: exits with 1 when they are not what the kernels give now.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "metalsim"))

from metalsim.cuda import to_cuda  # noqa: E402

OUT = ROOT / "csrc" / "gpu"
PIECE = 8000  # characters of a string literal: compilers need not take more than 65536
HEAD = """\
// csrc/gpu/{kind}_sources.cpp: kernels/*.metal{how}. Written by tools/gpu/embed_kernels.py: do not edit.
// clang-format off
#include "gpu/{kind}_sources.h"

namespace personaplex::gpu {{

"""
CUDA_TAIL = """
}  // namespace

std::vector<CudaSource> cuda_sources() {
  return {
"""
METAL_TAIL = """std::vector<MetalSource> metal_sources() {
  return {
"""
END = "  };\n}\n\n}  // namespace personaplex::gpu\n"
Parts = dict[str, tuple[str, dict[str, str]]]  # by file: the text that kernels share, and each by its host_name


def literal(text: str) -> str:
    """A C++ string of the text, in raw pieces of whole lines."""
    assert ')~"' not in text
    pieces = [""]
    for line in text.splitlines(keepends=True):
        if len(pieces[-1]) + len(line) > PIECE:
            pieces.append("")
        pieces[-1] += line
    return "\n".join(f'R"~({piece})~"' for piece in pieces)


def line_markers_of_clang(line: str) -> bool:
    return line.startswith("#line ") and line.endswith(('"<stdin>"', '"<built-in>"', '"<command line>"'))


def tidy(text: str) -> str:
    """Without the markers of clang's own files, and without blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in text.split("\n") if not line_markers_of_clang(line))


def cuda(parts: Parts) -> str:
    shared = {name: tidy(text) for name, (text, _) in parts.items()}
    lines = [text.splitlines(keepends=True) for text in shared.values()]
    same = next(i for i, row in enumerate(zip(*lines, strict=False)) if len(set(row)) > 1)
    common = "".join(lines[0][:same])  # the header, with which every text starts
    out = [HEAD.format(kind="cuda", how=" in CUDA C++"), "namespace {\n\n"]
    out += [f"constexpr char kHeader[] =\n{literal(common)};\n", CUDA_TAIL]
    for name, (_, functions) in parts.items():
        out.append(f'      {{"{name}", std::string(kHeader) +\n{literal(shared[name][len(common) :])},\n       {{\n')
        out += [f'           {{"{host_name}", {literal(function)}}},\n' for host_name, function in functions.items()]
        out.append("       }},\n")
    return "".join([*out, END])


def metal(parts: Parts) -> str:
    out = [HEAD.format(kind="metal", how=""), METAL_TAIL]
    for name, (_, functions) in parts.items():
        text = (ROOT / "kernels" / name).read_text(encoding="utf-8")
        out.append(f'      {{"{name}",\n{literal(text)},\n       {{\n')
        out += [f'           "{host_name}",\n' for host_name in functions]
        out.append("       }},\n")
    return "".join([*out, END])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    args = parser.parse_args()
    parts = {path.name: to_cuda(path).parts() for path in sorted((ROOT / "kernels").glob("*.metal"))}
    good = True
    for file, text in (("cuda_sources.cpp", cuda(parts)), ("metal_sources.cpp", metal(parts))):
        path = OUT / file
        if args.check:
            same = path.exists() and path.read_text(encoding="utf-8") == text
            print(f"{file} {'is' if same else 'is not'} what the kernels give")
            good = good and same
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{file}: {len(text)} characters")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
