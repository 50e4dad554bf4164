#!/usr/bin/env python3
"""Writes the table between docs/performance.md's markers from kernels/tuning/hopper.json: what choosing gains.

python tools/tuning_table.py           # rewrites docs/performance.md
python tools/tuning_table.py --print   # only shows it
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "kernels" / "tuning" / "hopper.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- tuning: tools/tuning_table.py -->", "<!-- end of tuning -->"
_HEAD = """\
| operation | n x k | bits | columns | us | tile, simdgroups, split, passes | gain over the rule | over the worst |
|---|---|---|---|---|---|---|---|
"""


def table(tuning: dict[str, Any]) -> str:
    return _HEAD + "".join(_row(job) for job in tuning["jobs"])


def _row(job: dict[str, Any]) -> str:
    tile = f"{job['tile'] or '-'} {job['simdgroups']} {job['split']} {job['passes']}"
    op = job["op"] + (", int8 ring" if "whole" in job else "")
    gains = f"{job['rule_us'] / job['us']:.2f} | {job['worst_us'] / job['us']:.1f}"
    size = f"{job['n']} x {job['k']} | {job['bits']} | {job['columns']}"
    return f"| {op} | {size} | {job['us']:.1f} | {tile} | {gains} |\n"


def insert(page: str, text: str) -> str:
    """The page with `text` between its markers; ValueError where they are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/performance.md has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{text}{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="show the table and write nothing")
    options = parser.parse_args()
    text = table(json.loads(TABLE.read_text("utf-8")))
    if options.print:
        print(text, end="")
        return 0
    page = PAGE.read_text("utf-8")
    PAGE.write_text(insert(page, text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
