#!/usr/bin/env python3
"""Writes the table between docs/performance.md's markers from kernels/tuning/hopper.json: what choosing gains.

python tools/tuning_table.py           # rewrites docs/performance.md
python tools/tuning_table.py --print   # only shows it
"""

import json
import sys
from pathlib import Path
from typing import Any

import marked_table

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "kernels" / "tuning" / "hopper.json"
PAGE = ROOT / "docs" / "performance.md"
MARKERS = ("<!-- tuning: tools/tuning_table.py -->", "<!-- end of tuning -->")
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


if __name__ == "__main__":
    sys.exit(marked_table.main(__doc__, PAGE, MARKERS, lambda: table(json.loads(TABLE.read_text("utf-8")))))
