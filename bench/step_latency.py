#!/usr/bin/env python3
"""Times one frame and its parts: Mimi encode, language model (temporal, text, depformer), Mimi decode, the whole step.

    python bench/step_latency.py                                   # random:tiny, the engine and device that are there
    python bench/step_latency.py --model random:7b --bits 4 --device cuda --compile --json

Speed does not depend on what the weights are, so random ones of full size serve. The parts are measured in turn within
every round, so that a machine that slows down does so for all of them. Parts overlap nowhere: the total is measured by
itself and may differ from their sum.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import personaplex

FRAME_MS = 80.0


def percentile(times: list[float], q: float) -> float:
    return float(np.percentile(np.asarray(times), q))


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def measure(model: personaplex.Model, frames: int, warmup: int, context: int) -> dict[str, list[float]]:
    """Milliseconds per frame of every part: `frames` rounds after `warmup`, `context` frames in the KV ring before."""
    core = model._core
    rng = np.random.default_rng(0)
    samples = int(core.config["frame_samples"])
    codes = rng.integers(0, int(core.config["card"]), int(core.config["codebooks"])).astype(np.int32)
    block = (0.05 * rng.standard_normal(4 * samples)).astype(np.float32)
    session = core.session(seed=1)
    session.prompt(text_tokens=[int(core.config["text_padding_id"])] * context)
    times: dict[str, list[float]] = {"mimi_encode": [], "language_model": [], "mimi_decode": [], "total": []}
    for i in range(warmup + frames):
        row = {
            "mimi_encode": timed(lambda: core.encode(block)) / 4,
            "language_model": session.step_codes(codes, decode=False).step_ms,
            "mimi_decode": timed(lambda: core.decode(np.repeat(codes[:, None], 4, axis=1))) / 4,
            "total": session.step(block[:samples]).step_ms,
        }
        if i >= warmup:
            for part, ms in row.items():
                times[part].append(ms)
    return times


def report(model: personaplex.Model, times: dict[str, list[float]], load_s: float, context: int) -> dict[str, object]:
    parts = {
        name: {f"p{q}_ms": round(percentile(values, q), 3) for q in (50, 95, 99)} for name, values in times.items()
    }
    total = statistics.median(times["total"])
    return {
        "model": model.name,
        **{
            k: model.info[k] for k in ("device", "device_name", "engine", "dtype", "bits", "group_size", "weight_bytes")
        },
        "compiled": model.info["compiled"],
        "compile_note": model.info["compile_note"],
        "context": context,
        "frames": len(times["total"]),
        "load_s": round(load_s, 2),
        "parts": parts,
        "real_time_factor": round(total / FRAME_MS, 4),
        "versions": {"personaplex": personaplex.__version__, "mlx": model.info["mlx_version"]},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:tiny", help="random:tiny, random:7b, a directory or hub id")
    parser.add_argument("--bits", type=int, choices=(4, 8, 16), help="quantize temporal and depformer")
    parser.add_argument("--device", default="auto", help="auto, cpu, metal or cuda")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--compile", action="store_true", help="compile the frame with mx::compile")
    parser.add_argument("--frames", type=int, default=50, help="rounds that count (50)")
    parser.add_argument("--warmup", type=int, default=5, help="rounds before them (5)")
    parser.add_argument("--context", type=int, default=100, help="frames in the KV ring before the first round (100)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    args = parser.parse_args()
    if args.frames < 1 or args.warmup < 0 or args.context < 0:
        parser.error("--frames must be at least 1, --warmup and --context at least 0")

    start = time.perf_counter()
    model = personaplex.load(
        args.model,
        device=args.device,
        dtype=args.dtype,
        bits=args.bits,
        compile=args.compile,
    )
    load_s = time.perf_counter() - start
    result = report(model, measure(model, args.frames, args.warmup, args.context), load_s, args.context)
    if args.json:
        print(json.dumps(result))
        return 0
    print(
        f"{result['model']} on {result['device_name']}, {result['engine']} engine, {result['dtype']}, {result['bits']}"
    )
    if result["compile_note"]:
        print(f"not compiled: {result['compile_note']}")
    for name, row in result["parts"].items():  # type: ignore[attr-defined]
        print(f"{name:15} p50 {row['p50_ms']:9.2f}   p95 {row['p95_ms']:9.2f}   p99 {row['p99_ms']:9.2f} ms")
    print(f"real-time factor {result['real_time_factor']} (a frame is {FRAME_MS:.0f} ms)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
