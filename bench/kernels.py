#!/usr/bin/env python3
"""Times every operation of a full-size frame by itself: microseconds, GB/s, and the share of the memory's speed.

The cases are those that tests/cpp/test_ops_cases.cpp checks. Each takes turns with so many copies of its weights that
none is in a cache. GB/s counts weights, keys and values; the codec's convolutions use theirs many times over and are
limited by arithmetic instead. CPU only.
"""

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any

import machine
import saved

from personaplex import _core

MEMORY_SECONDS = 3.0  # the memory's speed is measured again after this

_COLUMNS = "{:16}{:24}{:34}{:>5}{:>5}{:>6}{:>10}{:>8}{:>11}"
_HEAD = _COLUMNS.format("operation", "where", "shape", "bits", "cols", "calls", "us", "GB/s", "of memory")


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="kernels.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--bits", type=int, default=4, choices=(4, 8, 16), help="of the weights (default: 4)")
    out.add_argument("--kv-bits", type=int, default=16, choices=(16, 8), help="of keys and values (default: 16)")
    out.add_argument("--context", type=int, default=250, metavar="N", help="positions that attention sees (250)")
    out.add_argument("--columns", type=int, default=1, metavar="N", help="1: a frame; up to 32: a prefill (default: 1)")
    out.add_argument("--ragged", action="store_true", help="the small odd sizes of the tests instead")
    out.add_argument("--only", default="", metavar="TEXT", help="cases with this in their operation or place")
    out.add_argument("--instruction-set", default="", metavar="NAME", help="such as avx2 (default: the fastest)")
    out.add_argument("--threads", type=int, default=0, metavar="N", help="default: all usable cores")
    out.add_argument("--repeats", type=int, default=50, metavar="N", help="calls of each, of which the median (50)")
    out.add_argument("--json", action="store_true", help="a JSON object a line, with the machine and the commit")
    out.add_argument("--save", metavar="NAME", help="append these objects to bench/results/kernels/NAME.jsonl")
    return out


def bandwidth(threads: int) -> float:
    """GB/s of the reading loop that is fastest now."""
    loops = _core.read_bandwidth(threads=threads, passes=3)
    return max(statistics.median(passes) for passes in loops.values())


def origin(options: argparse.Namespace) -> dict[str, Any]:
    """What every line of this run has in common."""
    return {
        "instruction_set": options.instruction_set or os.environ.get("PERSONAPLEX_CPU") or "fastest",
        "threads": options.threads or None,  # None: all usable cores
        "machine": machine.describe(machine.describe_processor()),
        "commit": machine.commit(),
        "date": machine.today(),
    }


def run(options: argparse.Namespace) -> None:
    cases = (
        _core.ragged_cases()
        if options.ragged
        else _core.frame_cases(options.bits, options.kv_bits, options.context, options.columns)
    )
    cases = [case for case in cases if options.only in f"{case.op} {case.name}"]
    if not cases:
        raise ValueError(f"no case has {options.only!r} in its operation or place")
    saved.check(options.save)
    if not options.json:
        print(_HEAD)
    made_by = origin(options)
    frame_us = {"language model": 0.0, "codec": 0.0}
    memory, measured = bandwidth(options.threads), time.monotonic()
    for case in cases:
        taken = statistics.median(
            _core.time_case(case, options.instruction_set, threads=options.threads, repeats=options.repeats)
        )
        if time.monotonic() - measured > MEMORY_SECONDS:
            memory, measured = bandwidth(options.threads), time.monotonic()
        speed = case.bytes / taken / 1e3
        codec = case.op not in ("project", "project_qkv", "attend", "sample") or case.name.startswith("codec")
        frame_us["codec" if codec else "language model"] += case.per_frame * taken
        facts = {name: getattr(case, name) for name in ("op", "name", "shape", "bits", "columns", "per_frame")}
        numbers = {"us": round(taken, 2), "bytes": case.bytes, "gb_per_s": round(speed, 2)}
        result = {**facts, **numbers, "bandwidth_gb_per_s": round(memory, 2), **made_by}
        if options.save:
            saved.append(f"kernels/{options.save}", [result])
        if options.json:
            print(json.dumps(result), flush=True)
        else:
            print(
                f"{case.op:16}{case.name:24}{case.shape:34}{case.bits:5}{case.columns:5}{case.per_frame:6}"
                f"{taken:10.1f}{speed:8.1f}{speed / memory:11.0%}",
                flush=True,
            )
    if not options.json and not options.ragged:
        sums = ", ".join(f"{name} {us / 1e3:.2f} ms" for name, us in frame_us.items())
        print(f"\ncalls x us: {sums}; {machine.describe_processor()}, {memory:.1f} GB/s")


def main() -> int:
    options = parser().parse_args()
    try:
        run(options)
    except KeyboardInterrupt:
        print("kernels: interrupted", file=sys.stderr)
        return 130
    except ValueError as error:
        print(f"kernels: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
