"""Times frames of a conversation on one engine: fills the KV ring, warms up, and steps, part by part."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import personaplex

FRAME_MS = 80.0  # of speech
PARTS = ("mimi_encode", "temporal", "depformer", "mimi_decode")
Tick = Callable[[], object]


@dataclass(frozen=True)
class Frame:
    """Milliseconds of one step, and how much it saw.

    The parts are None where the step was whole; where it was split into them, that may have cost time.
    """

    position: int  # temporal positions before it
    heard: int  # frames that Mimi had heard before it
    mimi_encode: float | None
    temporal: float | None
    depformer: float | None
    mimi_decode: float | None
    total: float

    @property
    def whole(self) -> bool:
        return self.temporal is None


@dataclass
class Round:
    """Frames that were timed one after the other, and the memory's speed around them, GB/s by reading loop."""

    frames: list[Frame]
    bandwidth: dict[str, list[float]] = field(default_factory=dict)


class Conversation:
    """A session that talks to noise.

    Args:
        model: the loaded model.
        fill: temporal positions in the ring before the first frame, at least those of a prompt without text.
    """

    def __init__(self, model: personaplex.Model, fill: int, tick: Callable[[int, int], object] | None = None) -> None:
        self.model = model
        config = model._core.config
        padding, spacers = int(config["text_padding_id"]), int(config["spacer_frames"])
        text = [padding] * max(0, fill - (2 * spacers - 1))
        self._session = model._core.session(seed=1)
        self._session.prompt(text_tokens=text, progress=tick)
        self._codebooks, self._card = int(config["codebooks"]), int(config["card"])
        rng = np.random.default_rng(0)
        self._pcm = (0.05 * rng.standard_normal(int(config["frame_samples"]))).astype(np.float32)
        self.position = int(self._session.position)
        self._heard = 0

    def step(self, split: bool = True) -> Frame:
        self._session.set_timing(split)
        out = self._session.step(self._pcm)
        frame = Frame(
            self.position,
            self._heard,
            out.encode_ms,
            out.temporal_ms,
            out.depformer_ms,
            out.decode_ms,
            out.step_ms,
        )
        self.position += 1
        self._heard += 1
        return frame

    def run(self, count: int, paced: bool = False, tick: Tick = lambda: None) -> list[Frame]:
        """Times `count` frames, every other one split. Paced: one begins every 80 ms, as in a conversation, or at once
        when it is late."""
        frames = []
        start = time.perf_counter()
        for i in range(count):
            if paced:
                time.sleep(max(0.0, start + i * FRAME_MS / 1e3 - time.perf_counter()))
            frames.append(self.step(split=i % 2 == 0))
            tick()
        return frames

    def clone_ms(self) -> float:
        """Milliseconds that a clone of the conversation takes; it is closed again."""
        start = time.perf_counter()
        copy = self._session.clone()
        taken = (time.perf_counter() - start) * 1e3
        copy.close()
        return taken

    def close(self) -> None:
        self._session.close()


def frame_bytes(model: personaplex.Model, frames: Iterable[Frame]) -> dict[str, int]:
    """Bytes that each part of a frame, and the whole of it, read from memory; the mean over these frames.

    Weights are counted once, keys and values once a visible position. Mimi's transformers run at two positions a frame.
    """
    counted, config = model.info["frame_bytes"], model._core.config
    frames = list(frames)
    seen = statistics.fmean(min(f.position + 1, int(config["context"]) - 1) for f in frames)
    heard = statistics.fmean(min(2 * (f.heard + 1), int(config["mimi_context"])) for f in frames)
    parts = {
        "mimi_encode": counted["mimi_encode"] + heard * counted["mimi_kv"],
        "temporal": counted["temporal"] + seen * counted["temporal_kv"],
        "depformer": counted["depformer"],
        "mimi_decode": counted["mimi_decode"] + heard * counted["mimi_kv"],
    }
    return {**{name: round(value) for name, value in parts.items()}, "total": round(sum(parts.values()))}


def times(frames: Iterable[Frame], part: str) -> list[float]:
    """Milliseconds of a part over the frames that were split into them; or the "total", over those that were not, where
    there are any."""
    frames = [f for f in frames if getattr(f, part) is not None]
    if part == "total":
        frames = [f for f in frames if f.whole] or frames
    return [float(getattr(f, part)) for f in frames]


def language_model(frames: Iterable[Frame]) -> list[float]:
    """Milliseconds of temporal and depformer together."""
    return [f.temporal + f.depformer for f in frames if f.temporal is not None and f.depformer is not None]


def best_loop(rounds: list[Round]) -> tuple[str, list[float]] | None:
    """The fastest reading loop, by the median of its rounds' medians, and these; None without measurements."""
    loops = rounds[0].bandwidth
    if not loops:
        return None
    by_name = {name: [statistics.median(r.bandwidth[name]) for r in rounds] for name in loops}
    name = max(by_name, key=lambda loop: statistics.median(by_name[loop]))
    return name, by_name[name]


def memory_of(model: personaplex.Model) -> dict[str, Any]:
    """Arguments of read_bandwidth for the threads that this model computes with."""
    return {"threads": model.info["threads"] or 0}
