"""Writes csrc/gpu/cuda_sources.cpp: kernels/*.metal in CUDA C++, as the core embeds them.

    python tools/gpu/embed_kernels.py [--check]

Needs what tools/metalsim needs, which a build of the package does not have: so the file is kept in the repository.
--check: exits with 1 when it is not what the kernels give now.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "metalsim"))

from metalsim.cuda import to_cuda  # noqa: E402

OUT = ROOT / "csrc" / "gpu" / "cuda_sources.cpp"
PIECE = 8000  # characters of a string literal: compilers need not take more than 65536
HEAD = """\
// csrc/gpu/cuda_sources.cpp: kernels/*.metal in CUDA C++. Written by tools/gpu/embed_kernels.py: do not edit.
// clang-format off
#include "gpu/cuda_sources.h"

namespace personaplex::gpu {

namespace {

"""
TAIL = """
}  // namespace

std::vector<CudaSource> cuda_sources() {
  return {
"""


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


def generate() -> str:
    parts = {path.name: to_cuda(path).parts() for path in sorted((ROOT / "kernels").glob("*.metal"))}
    shared = {name: tidy(text) for name, (text, _) in parts.items()}
    lines = [text.splitlines(keepends=True) for text in shared.values()]
    same = next(i for i, row in enumerate(zip(*lines, strict=False)) if len(set(row)) > 1)
    common = "".join(lines[0][:same])  # the header, with which every text starts
    out = [HEAD, f"constexpr char kHeader[] =\n{literal(common)};\n", TAIL]
    for name, (_, functions) in parts.items():
        out.append(f'      {{"{name}", std::string(kHeader) +\n{literal(shared[name][len(common) :])},\n       {{\n')
        out += [f'           {{"{host_name}", {literal(function)}}},\n' for host_name, function in functions.items()]
        out.append("       }},\n")
    out.append("  };\n}\n\n}  // namespace personaplex::gpu\n")
    return "".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    args = parser.parse_args()
    text = generate()
    if args.check:
        same = OUT.exists() and OUT.read_text(encoding="utf-8") == text
        print(f"{OUT.name} {'is' if same else 'is not'} what the kernels give")
        return 0 if same else 1
    OUT.write_text(text, encoding="utf-8")
    print(f"{OUT.name}: {len(text)} characters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
