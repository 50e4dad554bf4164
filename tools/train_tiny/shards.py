"""The corpus on disk: a speaker's clips in one Opus file beside an index of what is said where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from sound import RATE

GAP = 2400  # samples of silence between clips: Opus smears a few hundred
# libsndfile maps 0..1 to the bit rate between 256 and 6 kbit/s of a mono stream.
QUALITY = {"agents": 0.80, "users": 0.96, "evaluation": 0.80}


@dataclass(frozen=True)
class Clip:
    """One line of one speaker: int16 at 24 kHz."""

    speaker: str
    text: str
    samples: NDArray[np.int16]


def write(folder: Path, group: str, name: str, said: Sequence[tuple[str, NDArray[np.float32]]]) -> None:
    """Both files of a speaker; the index last, so that its presence means that the speaker is done."""
    folder = folder / group
    folder.mkdir(parents=True, exist_ok=True)
    gap, parts, index, at = np.zeros(GAP, np.float32), [], [], 0
    for text, samples in said:
        parts += [samples, gap]
        index.append([text, at, len(samples)])
        at += len(samples) + GAP
    with soundfile.SoundFile(
        folder / f"{name}.ogg", "w", RATE, 1, "OPUS", format="OGG", compression_level=QUALITY[group]
    ) as file:
        file.write(np.concatenate(parts))
    partial = folder / f"{name}.json.part"
    partial.write_text(json.dumps(index), encoding="utf-8")
    partial.rename(folder / f"{name}.json")


def done(folder: Path, group: str, name: str) -> bool:
    return (folder / group / f"{name}.json").exists()


def _decode(index: Path) -> list[Clip]:
    samples, rate = soundfile.read(index.with_suffix(".ogg"), dtype="int16")
    if rate != RATE:
        raise ValueError(f"[shards] expected {RATE} Hz, got {rate} in {index.with_suffix('.ogg')}; render it again")
    said = json.loads(index.read_text(encoding="utf-8"))
    return [Clip(index.stem, text, samples[at : at + length]) for text, at, length in said]


def read(folder: Path, group: str) -> list[Clip]:
    """Every clip of a group, speakers in order of their names; decoded on all cores."""
    with ThreadPoolExecutor() as pool:
        return [clip for clips in pool.map(_decode, sorted((folder / group).glob("*.json"))) for clip in clips]
