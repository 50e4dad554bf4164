#!/usr/bin/env python3
"""Writes the table between README.md's markers from bench/results/*.jsonl: the newest result of every configuration.

python tools/performance_table.py           # rewrites README.md
python tools/performance_table.py --print   # only shows it
"""

import json
import sys
from pathlib import Path
from typing import Any

import marked_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
MARKERS = ("<!-- performance: tools/performance_table.py -->", "<!-- end of performance -->")
_HEAD = """\
| machine | engine | weights | frames remembered | ms a frame: p50, p99 | real-time factor | of memory speed | memory |
|---|---|---|---|---|---|---|---|
"""


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Every line of every file, oldest first."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    return [json.loads(line) for line in lines if line.strip()]


def newest(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last result of every configuration of a full-size model."""
    kept = {_key(result): result for result in found if not result["model"].endswith("tiny")}
    return [kept[key] for key in sorted(kept)]


def table(found: list[dict[str, Any]]) -> str:
    return _HEAD + "".join(_row(result) for result in newest(found))


def _machine(result: dict[str, Any]) -> str:
    if result["device"] != "cpu" or "machine" not in result:
        return str(result.get("machine", result)["device_name"])
    return f"{result['machine']['processor']}, {result['machine']['cores']} cores"


def _weights(result: dict[str, Any]) -> str:
    bits = result["bits"]["temporal"]
    keys = ", int8 keys and values" if result.get("kv_dtype") == "int8" else ""
    return ("bfloat16" if bits == 16 else f"{bits}-bit") + keys


def _engine(result: dict[str, Any]) -> str:
    if result["engine"] == "fused":
        return f"fused, {result['instruction_set']}" if result.get("instruction_set") else "fused"
    return f"graph, {result['dtype']}" + (", compiled" if result["compiled"] else "")


def _key(result: dict[str, Any]) -> tuple[str, str, str, int, bool]:
    paced = bool(result.get("paced"))
    return (_machine(result), _engine(result), _weights(result), int(result["context"]), paced)


def _row(result: dict[str, Any]) -> str:
    total = result["parts"]["total"]
    share, memory = result.get("fraction_of_bandwidth"), result.get("peak_rss_gb")
    cells = (
        _machine(result),
        _engine(result) + (", one every 80 ms" if result.get("paced") else ""),
        _weights(result),
        str(result["context"]),
        f"{_ms(total['p50_ms'])}, {_ms(total['p99_ms'])}",
        f"{result['real_time_factor']:.2f}",
        "-" if share is None else f"{share:.0%}",
        "-" if memory is None else f"{memory:.1f} GB",
    )
    return "| " + " | ".join(cells) + " |\n"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(marked_table.main(__doc__, ROOT / "README.md", MARKERS, lambda: table(results())))
