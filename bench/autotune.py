"""Chooses, for every operation of a full-size frame, the tile that is fastest on this GPU, and writes them to a table.

A candidate's time is that of a list of calls whose weights take turns, more of them than the GPU's cache holds, so that
none is in it; the median of several lists. Every candidate's result is compared with the rule's before it counts. Then
the fastest few and the rule's take turns once more. The table is written after every job: what is interrupted goes on
from there.
"""

import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
from tqdm import tqdm

from personaplex import _core

CONTEXTS = (250, 3000)  # positions of attention: a short conversation, a full memory
PRODUCTS = ("project", "project_qkv", "attend_project")
TOLERANCE, CODEC_TOLERANCE = 8e-3, 1e-3  # of ||y||, as the tests have them
FINALISTS = 4
FINAL_TURNS = 3

_COLUMNS = "{:15}{:24}{:38}{:>5}{:>5}{:>7}{:>9}{:>9}{:>10}{:>8}{:>8}{:>8}  {}"
HEAD = _COLUMNS.format(
    *("operation", "where", "shape", "bits", "cols", "tried", "best us", "rule us", "worst us"),
    *("GB/s", "/ rule", "/ worst", "best tile, simdgroups, split, passes"),
)


def cases(bits: Sequence[int], columns: Sequence[int], only: str) -> list[Any]:
    """What has choices, each size once."""
    found: dict[tuple[object, ...], Any] = {}
    for count in columns:
        for b in bits:
            for kv_bits in (16, 8):
                for context in CONTEXTS:
                    for case in _core.tuning_cases(b, kv_bits, context, count):
                        # Only attention depends on the context; it and what appends, on the bits of keys and values.
                        if case.op == "attend" or (context == CONTEXTS[0] and kv_bits in (16, ring_bits(case))):
                            found.setdefault((case.op, case.bits, case.columns, case.shape), case)
    return [case for case in found.values() if only in f"{case.op} {case.name}"]


def ring_bits(case: Any) -> int:
    return 8 if case.shape.endswith("int8 ring") else 16


def shown(tile: Any) -> str:
    return f"{tile.tile or '-'} {tile.simdgroups} {tile.split} {tile.passes}"


class Table:
    """The file of a GPU's choices."""

    def __init__(self, path: Path, family: str, device: str, again: bool) -> None:
        self.path = path
        self.head = {"family": family, "device": device, "commit": machine.commit(), "date": machine.today()}
        self.jobs: list[dict[str, Any]] = []
        if again or not path.exists():
            return
        text = path.read_text("utf-8")
        _core.check_tuning(text, str(path))
        before = json.loads(text)
        if before["jobs"] and before.get("device") != device:
            raise ValueError(f"{path} is the table of {before.get('device')}, not of {device}: take another --out")
        self.jobs = before["jobs"]

    @staticmethod
    def _key(job: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(job.get(name, 1) for name in ("op", "bits", "n", "k", "columns", "whole"))

    def has(self, job: dict[str, Any]) -> bool:
        return any(self._key(job) == self._key(other) for other in self.jobs)

    def add(self, job: dict[str, Any]) -> None:
        """Writes the file, whole or not at all."""
        self.jobs.append(job)
        lines = ",\n".join(f"    {json.dumps(one)}" for one in self.jobs)
        head = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in self.head.items())
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(f'{{\n{head}  "jobs": [\n{lines}\n  ]\n}}\n', encoding="utf-8")
        os.replace(part, self.path)


def times_of(tuner: Any, op: str, repeats: int) -> tuple[dict[int, float], list[str]]:
    """Microseconds by index of the tile, for those that are right; and those that are wrong, in words."""
    tolerance = TOLERANCE if op in PRODUCTS else CODEC_TOLERANCE
    times: dict[int, float] = {}
    wrong = []
    for i, tile in enumerate(tuner.tiles):
        try:
            off = tuner.distance(tile)
            if not off <= tolerance:  # NaN too
                wrong.append(f"{shown(tile)}: off by {off:.1e}")
                continue
            times[i] = statistics.median(tuner.time(tile, repeats))
        except ValueError:  # more threads than this GPU gives the kernel
            continue
    return times, wrong


def choose(tuner: Any, times: dict[int, float], repeats: int) -> tuple[int, dict[int, float]]:
    """The index of the fastest, with the times of those that took turns at the end."""
    finalists = sorted(times, key=lambda i: times[i])[:FINALISTS]
    if 0 not in finalists:
        finalists.append(0)
    turns: dict[int, list[float]] = {i: [] for i in finalists}
    for _ in range(FINAL_TURNS):
        for i in finalists:
            turns[i] += tuner.time(tuner.tiles[i], repeats)
    final = {i: statistics.median(taken) for i, taken in turns.items()}
    return min(final, key=lambda i: final[i]), final


def run(
    bench: Any, bits: Sequence[int], columns: Sequence[int], only: str, out: Path, again: bool, repeats: int
) -> int:
    """Writes `out`. 1 when a candidate's result was wrong."""
    todo = cases(bits, columns, only)
    if not todo:
        raise ValueError(f"no case has {only!r} in its operation or place")
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {str(out.parent)!r} for --out")
    table = Table(out, bench.family, bench.device_name, again)
    memory = max(statistics.median(passes) for passes in bench.read_bandwidth(passes=3).values())
    table.head["read_gb_per_s"] = round(memory)
    print(f"{bench.device_name}, {memory:.0f} GB/s\n\n{HEAD}", flush=True)
    wrong = []
    with tqdm(todo, unit="job", file=sys.stderr, disable=None) as bar:
        bar.set_description("compiling")
        bench.prepare(list(bits))
        for case in bar:
            bar.set_description(f"{case.op} {case.name}"[:40])
            tuner = bench.tuner(case)
            job = tuner.job
            if job is None or table.has(job):
                continue
            times, off = times_of(tuner, case.op, repeats)
            wrong += [f"{case.op} {case.name} {case.shape}, {case.bits} bits: {one}" for one in off]
            if 0 not in times:  # what the others are compared with
                print(f"{case.op} {case.name} {case.shape}, {case.bits} bits: left out, its first tile does not run")
                continue
            best, final = choose(tuner, times, repeats)
            tile, worst = tuner.tiles[best], max(times.values())
            us = {"us": round(final[best], 2), "rule_us": round(final[0], 2), "worst_us": round(worst, 2)}
            how = {name: getattr(tile, name) for name in ("tile", "simdgroups", "split", "passes")}
            table.add({**job, **how, **us})
            line = _COLUMNS.format(
                *(case.op, case.name, case.shape, case.bits, case.columns, len(times)),
                *(f"{final[best]:.2f}", f"{final[0]:.2f}", f"{worst:.2f}", f"{case.bytes / final[best] / 1e3:.0f}"),
                *(f"{final[0] / final[best]:.2f}", f"{worst / final[best]:.1f}", shown(tile)),
            )
            bar.write(line, file=sys.stdout)
            sys.stdout.flush()
            del tuner
    print(
        f"\n{len(table.jobs)} jobs in {out}. To use them: PERSONAPLEX_TUNING={out}, or, for all GPUs of this family, as"
    )
    print(f"kernels/tuning/{bench.family}.json in the next build.")
    for one in wrong:
        print(f"wrong: {one}", file=sys.stderr)
    return 1 if wrong else 0
