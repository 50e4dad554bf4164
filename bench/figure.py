"""The picture of a measurement: stacked parts against the budget of 80 ms and the floor that the memory sets."""

from pathlib import Path
from typing import Any

from frames import FRAME_MS, PARTS, Frame

_COLOURS = {"mimi_encode": "#4c9f70", "temporal": "#2f5d8c", "depformer": "#7fa7d1", "mimi_decode": "#9bc8a5"}


def check(path: Path) -> None:
    """Before anything is measured: ImportError without matplotlib, ValueError for a file that cannot be written."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError("--plot needs matplotlib: pip install 'personaplex[bench]'") from None
    matplotlib.use("Agg")
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--plot writes .png, .svg or .pdf, not {path.name!r}")
    if not path.parent.is_dir():
        raise ValueError(f"--plot: there is no folder {str(path.parent)!r}")


def draw(result: dict[str, Any], frames: list[Frame], path: Path) -> None:
    """Above: the median frame, stacked, over the same bytes at the memory's speed. Below: every frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(1.2, 1))
    parts, bandwidth = result["parts"], result["bandwidth_gb_per_s"]
    rows = {"measured": {part: parts[part]["p50_ms"] for part in PARTS}}
    if bandwidth:
        rows["floor"] = {part: parts[part]["bytes"] / bandwidth / 1e6 for part in PARTS}
    for row, values in rows.items():
        left = 0.0
        for part in PARTS:
            above.barh(row, values[part], left=left, color=_COLOURS[part], label=part.replace("_", " "))
            left += values[part]
        above.text(left, row, f" {left:.1f} ms", va="center")
    handles, labels = above.get_legend_handles_labels()
    above.legend(handles[: len(PARTS)], labels[: len(PARTS)], ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    above.axvline(FRAME_MS, color="black", linestyle="--")
    above.text(FRAME_MS, 0.5, " 80 ms of speech", va="center")  # between the bars
    above.set_xlim(0, 1.3 * max(FRAME_MS, *(sum(values.values()) for values in rows.values())))
    above.set_xlabel("ms, median frame")
    above.invert_yaxis()

    below.plot([frame.total for frame in frames], linewidth=0.8, color=_COLOURS["temporal"], label="whole frame")
    below.axhline(FRAME_MS, color="black", linestyle="--", label="80 ms of speech")
    if result["floor_ms"]:
        below.axhline(result["floor_ms"], color="#c0504d", label=f"floor at {bandwidth:.1f} GB/s")
    below.set_ylim(0, None)
    below.set_xlabel("frame")
    below.set_ylabel("ms")
    below.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    where = result["machine"]["processor"] if result["device"] == "cpu" else result["machine"]["device_name"]
    figure.suptitle(f"{result['model']}, {result['engine']} engine, {where}")
    figure.savefig(path, dpi=150)
