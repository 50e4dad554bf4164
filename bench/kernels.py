#!/usr/bin/env python3
"""Times every operation of a full-size frame by itself: microseconds, GB/s, and the share of the memory's speed.

The cases are those that tests/cpp/test_ops_cases.cpp checks. Each takes turns with so many copies of its weights that
none is in a cache. GB/s counts weights, keys and values; the codec's convolutions use theirs many times over and are
limited by arithmetic instead. --autotune chooses the tiles of a GPU instead: see autotune.py.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import autotune
import machine
import saved

from personaplex import _core, nvrtc
from personaplex.cache_dir import cache_dir

MEMORY_SECONDS = 3.0  # the memory's speed is measured again after this

_COLUMNS = "{:16}{:24}{:34}{:>5}{:>5}{:>6}{:>10}{:>8}{:>11}"
_HEAD = _COLUMNS.format("operation", "where", "shape", "bits", "cols", "calls", "us", "GB/s", "of memory")


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="kernels.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--device", choices=("auto", "cpu", "gpu", "metal", "cuda"), help="default: cpu; to tune: auto")
    out.add_argument(
        "--bits",
        type=int,
        nargs="+",
        choices=(4, 8, 16),
        help="of the weights (default: 4; to tune: all)",
    )
    out.add_argument("--kv-bits", type=int, default=16, choices=(16, 8), help="of keys and values (default: 16)")
    out.add_argument("--context", type=int, default=250, metavar="N", help="positions that attention sees (250)")
    out.add_argument(
        "--columns",
        type=int,
        nargs="+",
        metavar="N",
        help="1: a frame; up to 32: a prefill (default: 1; to tune: 1 8 32)",
    )
    out.add_argument("--ragged", action="store_true", help="the small odd sizes of the tests instead")
    out.add_argument("--only", default="", metavar="TEXT", help="cases with this in their operation or place")
    out.add_argument("--instruction-set", default="", metavar="NAME", help="such as avx2 (default: the fastest)")
    out.add_argument("--threads", type=int, default=0, metavar="N", help="default: all usable cores")
    out.add_argument("--repeats", type=int, metavar="N", help="calls of each, of which the median (50; to tune: 5)")
    out.add_argument("--json", action="store_true", help="a JSON object a line, with the machine and the commit")
    out.add_argument("--save", metavar="NAME", help="append these objects to bench/results/kernels/NAME.jsonl")
    tune = out.add_argument_group("tuning a GPU")
    tune.add_argument("--autotune", action="store_true", help="time every tile that an operation could have")
    tune.add_argument("--out", type=Path, metavar="FILE", help="the table (default: tuning-FAMILY.json); continued")
    tune.add_argument("--again", action="store_true", help="measure what the table has, too")
    return out


class Cpu:
    """What times the operations on the processor."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.name = machine.describe_processor()

    def bandwidth(self) -> float:
        return bandwidth(self.options.threads)

    def times(self, case: Any) -> list[float]:
        options = self.options
        return _core.time_case(case, options.instruction_set, threads=options.threads, repeats=options.repeats)


class Gpu:
    """What times them on a GPU: lists of calls, with the tiles of its table."""

    def __init__(self, options: argparse.Namespace) -> None:
        if options.threads or options.instruction_set:
            raise ValueError("--threads and --instruction-set are the processor's: they go with --device cpu")
        self.options = options
        self.bench = open_gpu(options.device)
        self.name = self.bench.device_name

    def bandwidth(self) -> float:
        return max(statistics.median(passes) for passes in self.bench.read_bandwidth(passes=3).values())

    def times(self, case: Any) -> list[float]:
        return self.bench.tuner(case).time(None, self.options.repeats)


def open_gpu(device: str) -> _core.GpuBench:
    return _core.GpuBench(device, nvrtc.folders(), str(cache_dir() / "kernels"))


def bandwidth(threads: int) -> float:
    """GB/s of the reading loop that is fastest now."""
    loops = _core.read_bandwidth(threads=threads, passes=3)
    return max(statistics.median(passes) for passes in loops.values())


def origin(options: argparse.Namespace, device_name: str) -> dict[str, Any]:
    """What every line of this run has in common."""
    instruction_set = options.instruction_set or os.environ.get("PERSONAPLEX_CPU") or "fastest"
    return {
        "instruction_set": instruction_set if options.device == "cpu" else "",
        "threads": options.threads or None,  # None: all usable cores
        "machine": machine.describe(device_name),
        "commit": machine.commit(),
        "date": machine.today(),
    }


def run(options: argparse.Namespace) -> int:
    cases = (
        _core.ragged_cases()
        if options.ragged
        else _core.frame_cases(options.bits[0], options.kv_bits, options.context, options.columns[0])
    )
    cases = [case for case in cases if options.only in f"{case.op} {case.name}"]
    if not cases:
        raise ValueError(f"no case has {options.only!r} in its operation or place")
    saved.check(options.save)
    device = Cpu(options) if options.device == "cpu" else Gpu(options)
    if not options.json:
        print(_HEAD)
    made_by = origin(options, device.name)
    frame_us = {"language model": 0.0, "codec": 0.0}
    memory, measured = device.bandwidth(), time.monotonic()
    for case in cases:
        taken = statistics.median(device.times(case))
        if time.monotonic() - measured > MEMORY_SECONDS:
            memory, measured = device.bandwidth(), time.monotonic()
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
        print(f"\ncalls x us: {sums}; {device.name}, {memory:.1f} GB/s")
    return 0


def tune(options: argparse.Namespace) -> int:
    bench = open_gpu(options.device)
    options.out = options.out or Path(f"tuning-{bench.family}.json")
    return autotune.run(bench, options.bits, options.columns, options.only, options.out, options.again, options.repeats)


def settle(options: argparse.Namespace) -> None:
    """What was left to its default."""
    one = not options.autotune
    options.device = options.device or ("cpu" if one else "auto")
    options.bits = options.bits or ([4] if one else [4, 8, 16])
    options.columns = options.columns or ([1] if one else [1, 8, 32])
    options.repeats = (50 if one else 5) if options.repeats is None else options.repeats
    if one and (len(options.bits) > 1 or len(options.columns) > 1):
        raise ValueError("several --bits or --columns go with --autotune")
    if one and (options.out or options.again):
        raise ValueError("--out and --again go with --autotune")
    if options.repeats < 1:
        raise ValueError(f"--repeats must be 1 or more, not {options.repeats}")
    if not one and options.device == "cpu":
        raise ValueError("--autotune chooses the tiles of a GPU: take another --device")


def main() -> int:
    options = parser().parse_args()
    try:
        settle(options)
        return tune(options) if options.autotune else run(options)
    except KeyboardInterrupt:
        known = options.autotune and options.out and options.out.exists()
        more = f"; the same command goes on from {options.out}" if known else ""
        print(f"kernels: interrupted{more}", file=sys.stderr)
        return 130
    except (ValueError, OSError, _core.PersonaplexError) as error:
        print(f"kernels: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
