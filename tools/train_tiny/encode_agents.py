"""The presets' lines as codes, all that training a language model needs of them: `python encode_agents.py CORPUS
codec.pt OUT.npz`."""

from __future__ import annotations

import argparse
from pathlib import Path

import lines
import mimi
import shards


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    codec, _ = mimi.load(options.codec)
    found = lines.coded(shards.read(options.corpus, "agents"), codec, "cpu")
    lines.keep(options.out, found)
    print(f"{len(found)} lines, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
