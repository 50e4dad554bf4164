"""The order of a measurement: rounds of frames with the memory's speed between them; then, if asked for, a baseline
that takes turns with it."""

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import machine
import numpy as np
from frames import FRAME_MS, Conversation, Frame, Round, memory_of, times

import personaplex
from personaplex import _core, nvrtc
from personaplex.cache_dir import cache_dir
from personaplex.progress import announce, progress_bar

MOST_FRAMES = 50  # a round, when --frames is not given; fewer where they are slow
ROUND_MS = 4000.0
FILL_SECONDS = 60.0  # a baseline that would take longer to fill its ring starts with an empty one


@dataclass
class Measurement:
    """Of one model.

    peak_bytes: most resident memory while it was alone, without the memory that bandwidth is measured on.
    calls: operations a frame; None where they are not counted.
    """

    rounds: list[Round]
    context: int
    load_s: float
    fill_s: float
    peak_bytes: int
    calls: float | None

    @property
    def frames(self) -> list[Frame]:
        return [frame for one in self.rounds for frame in one.frames]


@dataclass
class Comparison:
    """A baseline's frames beside ours.

    candidates: milliseconds of the depformer alone by dtype; dtype is the fastest of them. (A whole frame, or a prompt,
        would take minutes in the slower dtype.)
    how: "in turns", or "one after the other" where memory does not hold both.
    """

    engine: str
    dtype: str
    candidates: dict[str, float]
    how: str
    context: int
    ours: list[Frame]
    theirs: list[Frame]
    memory: int  # bytes that both need

    @property
    def ratio(self) -> float:
        return statistics.median(times(self.theirs, "total")) / statistics.median(times(self.ours, "total"))


def load(options: argparse.Namespace, **other: Any) -> personaplex.Model:
    """The model that the options name; `other` replaces some of them."""
    announce(f"loading {options.model} ...")
    names = "device engine dtype bits kv_bits threads depformer_steps compile"
    return personaplex.load(options.model, **{**{n: getattr(options, n) for n in names.split()}, **other})


def converse(model: personaplex.Model, fill: int) -> Conversation:
    with progress_bar("filling the context", "frame") as update:
        return Conversation(model, fill, update)


def measure(model: personaplex.Model, options: argparse.Namespace, load_s: float) -> tuple[Measurement, Conversation]:
    """Fills, warms up, and times `options.rounds` rounds. The conversation can go on afterwards."""
    start = time.perf_counter()
    talk = converse(model, options.context - options.warmup)
    fill_s = time.perf_counter() - start
    warm = talk.run(options.warmup)
    context = talk.position
    count = options.frames or _frames_per_round(warm)
    peak = machine.peak_bytes()  # before memory is taken for the bandwidth
    calls = model._core.calls
    edges = [_bandwidth(model)]
    rounds = []
    with progress_bar("measuring", "frame") as update:

        def tick() -> None:
            if update is not None:
                update(talk.position - context, options.rounds * count)

        for _ in range(options.rounds):
            frames = talk.run(count, options.paced, tick)
            peak = max(peak, machine.resident_bytes())
            edges.append(_bandwidth(model))
            rounds.append(Round(frames, {name: edges[-2][name] + edges[-1][name] for name in edges[-1]}))
    calls = None if calls is None else (model._core.calls - calls) / (options.rounds * count)
    return Measurement(rounds, context, load_s, fill_s, peak, calls), talk


def compare(model: personaplex.Model, talk: Conversation, ours: Measurement, options: argparse.Namespace) -> Comparison:
    """Times the graph engine in the dtype that is faster here, taking turns with `model` where memory holds both."""
    asked = {"engine": "graph", "kv_bits": None, "threads": None, "compile": False}
    needed = int(1.1 * model.info["weight_bytes"]) + (1 << 30)
    in_turns = model.info["device"] != "cpu" or machine.available_bytes() > needed
    if not in_turns:
        talk.close()
        model.unload()
    candidates = {}
    for dtype in ("float32", "bfloat16"):
        baseline = load(options, **asked, dtype=dtype)
        candidates[dtype] = _depformer_ms(baseline)
        baseline.unload()
    dtype = min(candidates, key=lambda name: candidates[name])
    baseline = load(options, **asked, dtype=dtype)
    start = time.perf_counter()
    other = Conversation(baseline, 0)
    seconds = (time.perf_counter() - start) * ours.context / max(1, other.position)
    if seconds < FILL_SECONDS and ours.context > other.position:
        other.close()
        other = converse(baseline, ours.context)
    context = other.position
    count = min(len(ours.rounds[0].frames), _frames_per_round([other.step(split=False)]))
    rested, slow = [], []
    with progress_bar("comparing", "round") as update:
        for i in range(options.rounds):
            if in_turns:
                rested += talk.run(len(ours.rounds[0].frames))
            slow += [other.step(split=False) for _ in range(count)]
            if update is not None:
                update(i + 1, options.rounds)
    other.close()
    baseline.unload()
    how = "in turns" if in_turns else "one after the other"
    return Comparison("graph", dtype, candidates, how, context, rested or ours.frames, slow, needed)


def late_frames(frames: list[Frame]) -> int:
    """Frames that took longer than the speech they hold."""
    return sum(frame.total > FRAME_MS for frame in frames)


def _frames_per_round(warm: list[Frame]) -> int:
    typical = warm[-1].total if warm else FRAME_MS
    return max(1, min(MOST_FRAMES, int(ROUND_MS / typical)))


def _depformer_ms(model: personaplex.Model) -> float:
    """Fastest of three runs of the depformer's steps on made-up hidden states; the first one allocates."""
    config = model._core.config
    hidden = np.ones((1, int(config["dim"])), np.float32)
    text, given = np.zeros(1, np.int32), np.zeros((1, int(config["depformer_steps"])), np.int32)
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        model._core.probe_depformer(hidden, text, given)
        taken.append((time.perf_counter() - start) * 1e3)
    return min(taken)


def _bandwidth(model: personaplex.Model) -> dict[str, list[float]]:
    """GB/s of the memory that this model computes from, by reading loop; nothing where it cannot be measured."""
    if model.info["device"] == "cpu":
        return _core.read_bandwidth(**memory_of(model), passes=3)
    if model.info["device"] == "cuda" and model.info["engine"] == "fused":
        return _core.read_gpu_bandwidth(passes=3, nvrtc=nvrtc.folders(), kernel_cache=str(cache_dir() / "kernels"))
    return {}
