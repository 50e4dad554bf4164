#!/usr/bin/env python3
"""Writes the table of predicted frames on Macs between docs/performance.md's markers. Nobody has measured there.

    python tools/predicted_frames.py           # rewrites docs/performance.md
    python tools/predicted_frames.py --print   # only shows it

A frame is predicted as bytes / bandwidth + dispatches * gap + fixed. Bytes come from the newest 4-bit result of
bench/results that was measured on a GPU; what a Mac does with them from figures that others have published.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import marked_table
import performance_table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
MARKERS = ("<!-- predictions: tools/predicted_frames.py -->", "<!-- end of predictions -->")
CONTEXTS = (250, 1500, 3000)
POSITION_BYTES = 32 * 2 * 4096 * 2  # layers, keys and values, dim, bfloat16
DISPATCHES = 520  # of a frame on Metal, as tests/cpp/test_gpu_ops.cpp counts them
FIXED_MS = 0.2  # the wait for one command buffer, and what the host does around it


class Mac(NamedTuple):
    name: str
    nominal: int  # GB/s, Apple's
    sustained: tuple[int, int]  # GB/s of products with quantized weights, worst and best case
    gap_us: float  # from one dispatch to the next that needs its result


MACS = (
    Mac("M1 Max", 400, (250, 270), 2.0),
    Mac("M2 Max", 400, (290, 320), 2.0),
    Mac("M3 Max, 40 cores", 400, (330, 360), 1.3),
    Mac("M4 Max, 40 cores", 546, (430, 470), 1.3),
    Mac("M5 Max, 40 cores", 614, (480, 560), 1.3),
    Mac("M1 Ultra", 800, (430, 500), 2.4),
    Mac("M2 Ultra", 800, (520, 560), 2.4),
    Mac("M3 Ultra", 819, (540, 640), 2.4),
)


def measured(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The newest result whose bytes are a GPU's; ValueError where there is none."""
    for result in reversed(found):
        if (
            (result["model"], result["engine"]) == ("random:7b", "fused")
            and result["device"] != "cpu"
            and (result["bits"]["temporal"], result["kv_dtype"]) == (4, "bfloat16")
        ):
            return result
    raise ValueError("bench/results has no 4-bit result of the fused engine on a GPU")


def frame_bytes(result: dict[str, Any], context: int) -> float:
    """That a frame reads when it remembers `context` frames."""
    total = float(result["parts"]["total"]["bytes"])
    return total + (context - int(result["context"])) * POSITION_BYTES


def predicted_ms(mac: Mac, count: float, bandwidth: int) -> float:
    return count / bandwidth / 1e6 + DISPATCHES * mac.gap_us / 1e3 + FIXED_MS


def table(found: list[dict[str, Any]]) -> str:
    result = measured(found)
    sizes = [frame_bytes(result, context) for context in CONTEXTS]
    heads = [f"at {context}: {size / 1e9:.2f} GB" for context, size in zip(CONTEXTS, sizes, strict=True)]
    lines = [
        f"| {DISPATCHES} dispatches | memory, nominal | products sustain | gap | {' | '.join(heads)} |",
        "|---|---|---|---|" + "---|" * len(CONTEXTS),
    ]
    for mac in MACS:
        slow, fast = mac.sustained
        cells = [f"{mac.name}", f"{mac.nominal} GB/s", f"{slow} to {fast} GB/s", f"{mac.gap_us} us"]
        for size in sizes:
            best, worst = predicted_ms(mac, size, fast), predicted_ms(mac, size, slow)
            cells.append(f"{best:.1f} to {worst:.1f} ms")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(marked_table.main(__doc__, PAGE, MARKERS, lambda: table(performance_table.results())))
