"""What was measured, as one JSON object and as a table for people."""

import argparse
import statistics
from typing import Any

import machine
import numpy as np
from frames import FRAME_MS, PARTS, best_loop, frame_bytes, language_model, times
from measure import Comparison, Measurement, late_frames

import personaplex

Json = dict[str, Any]

_TITLES = {
    "mimi_encode": "Mimi encode",
    "temporal": "temporal, text",
    "depformer": "depformer",
    "mimi_decode": "Mimi decode",
    "total": "whole frame",
}


def report(model_info: Json, measured: Measurement, counted: dict[str, int], options: argparse.Namespace) -> Json:
    """The JSON object, without a comparison. `counted` is frame_bytes() of the measured frames."""
    frames, rounds = measured.frames, measured.rounds
    parts = {}
    for part in (*PARTS, "total"):
        taken = times(frames, part)
        middle = statistics.median(taken)
        parts[part] = {
            **{f"p{q}_ms": round(float(np.percentile(taken, q)), 3) for q in (50, 95, 99)},
            "bytes": counted[part],
            "gb_per_s": round(counted[part] / middle / 1e6, 2),
        }
    total = statistics.median(statistics.median(times(r.frames, "total")) for r in rounds)
    loop = best_loop(rounds)
    bandwidth = fraction = floor = None
    if loop is not None:
        bandwidth = statistics.median(loop[1])
        lm = statistics.median(statistics.median(language_model(r.frames)) for r in rounds)
        fraction = (counted["temporal"] + counted["depformer"]) / lm / 1e6 / bandwidth
        floor = counted["total"] / bandwidth / 1e6
    names = (
        *("device", "device_note", "engine", "engine_note", "dtype", "kv_dtype", "instruction_set", "threads"),
        *("bits", "group_size", "weight_bytes", "compiled", "compile_note"),
    )
    return {
        "model": model_info["name"],
        **{name: model_info[name] for name in names},
        "depformer_steps": model_info["depformer_steps"],
        "context": measured.context,
        "rounds": len(rounds),
        "frames": len(frames),
        "paced": options.paced,
        "load_s": round(measured.load_s, 2),
        "fill_s": round(measured.fill_s, 2),
        "parts": parts,
        "bandwidth_gb_per_s": _rounded(bandwidth, 2),
        "bandwidth_loop": loop[0] if loop else None,
        "fraction_of_bandwidth": _rounded(fraction, 4),
        "floor_ms": _rounded(floor, 2),
        "floor_ratio": _rounded(total / floor if floor else None, 3),
        "real_time_factor": round(total / FRAME_MS, 4),
        "late_frames": late_frames(frames),
        "peak_rss_gb": round(measured.peak_bytes / 1e9, 3),
        "dispatches": _rounded(measured.calls, 1),
        "compare": None,
        "machine": machine.describe(model_info["device_name"]),
        "commit": machine.commit(),
        "date": machine.today(),
        "versions": machine.versions(model_info),
    }


def compared(made: Comparison) -> Json:
    """The "compare" object of the JSON."""
    theirs = times(made.theirs, "total")
    return {
        "engine": made.engine,
        "dtype": made.dtype,
        "depformer_ms": {name: round(ms, 1) for name, ms in made.candidates.items()},
        "how": made.how,
        "context": made.context,
        "frames": len(theirs),
        "p50_ms": round(statistics.median(theirs), 3),
        "ours_p50_ms": round(statistics.median(times(made.ours, "total")), 3),
        "ratio": round(made.ratio, 2),
    }


def describe_model(model: personaplex.Model) -> Json:
    """What report() needs of a model, kept for when it is gone."""
    return {**model.info, "depformer_steps": model.config["depformer_steps"]}


def count_bytes(model: personaplex.Model, measured: Measurement) -> dict[str, int]:
    return frame_bytes(model, measured.frames)


def table(result: Json) -> str:
    """The same for people."""
    bits = ", ".join(f"{name} {value}" for name, value in sorted(result["bits"].items()))
    where = result["machine"]["processor"] if result["device"] == "cpu" else result["machine"]["device_name"]
    threads = f", {result['threads']} threads, {result['instruction_set']}" if result["threads"] else ""
    lines = [
        f"{result['model']} on {where}{threads}",
        f"{result['engine']} engine, {result['dtype']}, keys and values {result['kv_dtype']}; bits: {bits}",
        f"{result['frames']} frames in {result['rounds']} rounds, from {result['context']} frames in memory"
        + (", one every 80 ms" if result["paced"] else ""),
        *(f"note: {result[note]}" for note in ("device_note", "engine_note", "compile_note") if result[note]),
        "",
        f"{'part':16}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'MB':>10}{'GB/s':>8}{'of memory':>11}",
    ]
    for part, row in result["parts"].items():
        share = row["gb_per_s"] / result["bandwidth_gb_per_s"] if result["bandwidth_gb_per_s"] else None
        lines.append(
            f"{_TITLES[part]:16}{row['p50_ms']:9.2f}{row['p95_ms']:9.2f}{row['p99_ms']:9.2f}{row['bytes'] / 1e6:10.1f}"
            f"{row['gb_per_s']:8.1f}" + (f"{share:10.0%} " if share else f"{'-':>10} ")
        )
    lines.append("")
    if result["bandwidth_gb_per_s"]:
        lines += [
            f"The memory gives {result['bandwidth_gb_per_s']:.1f} GB/s to a loop that only reads "
            f"({result['bandwidth_loop']}); temporal and depformer reach {result['fraction_of_bandwidth']:.1%} of it.",
            f"Nothing that reads these bytes can be faster than {result['floor_ms']:.1f} ms; a frame takes "
            f"{result['floor_ratio']:.2f} times that.",
        ]
    lines.append(
        f"A frame is 80 ms of speech: real-time factor {result['real_time_factor']:.3f}; {result['late_frames']} of "
        f"{result['frames']} frames took longer."
    )
    calls = f"; {result['dispatches']:.0f} operations a frame" if result["dispatches"] else ""
    lines.append(f"Peak memory {result['peak_rss_gb']:.2f} GB; loaded in {result['load_s']:.1f} s{calls}.")
    if other := result["compare"]:
        tried = ", ".join(f"{name} {ms:.0f} ms" for name, ms in other["depformer_ms"].items())
        lines.append(
            f"The {other['engine']} engine in {other['dtype']} (the faster here: depformer {tried}) takes "
            f"{other['p50_ms']:.1f} ms, {other['ratio']:.1f} times as long; measured {other['how']}, from "
            f"{other['context']} frames in memory."
        )
    return "\n".join(lines)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
