"""Figures of the evaluation: words, shares with their intervals, how near a coded sound is to its original."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import world
from bands import RATE, mel_bank
from numpy.typing import NDArray

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
Sound = NDArray[np.float32]


def words(text: str) -> list[str]:
    """Lower-case words without punctuation, digits spelled out, "$2" as "two dollars"."""
    plain = re.sub(r"\$(\d+)", r"\1 dollars", text.lower()).replace("o'clock", "")
    found = re.findall(r"[a-z']+|\d+", plain)
    return [NUMBERS[int(w)] if w.isdigit() and int(w) < len(NUMBERS) else w for w in found]


def errors(wanted: Sequence[str], got: Sequence[str]) -> int:
    """Words to replace, drop or add."""
    row = list(range(len(got) + 1))
    for i, w in enumerate(wanted):
        before, row[0] = row[0], i + 1
        for j, g in enumerate(got):
            before, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, before + (w != g))
    return row[-1]


@dataclass
class Share:
    """How many of how many, with Wilson's interval at 95 %."""

    right: int = 0
    of: int = 0

    def add(self, right: bool | int, of: int = 1) -> None:
        self.right += int(right)
        self.of += of

    @property
    def value(self) -> float:
        return self.right / self.of if self.of else math.nan

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        if not self.of:
            return math.nan, math.nan
        n, p = self.of, self.value
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.value:.3f} ({self.right} of {self.of}; {low:.3f} to {high:.3f})"


def mean_interval(values: Sequence[float], rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean and its 95 % interval from 2000 resamplings."""
    array = np.asarray(values)
    means = array[rng.integers(0, len(array), (2000, len(array)))].mean(1)
    return float(array.mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975)))


def magnitude(sound: Sound, window: int = 1024) -> NDArray[np.float64]:
    """Of the spectrum [window / 2 + 1, frames], a quarter of the window apart."""
    padded = np.pad(sound.astype(np.float64), window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 4]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return np.sqrt(np.abs(np.fft.rfft(frames * hann)) ** 2 + 1e-9).T


def mel_distance(original: Sound, coded: Sound) -> float:
    """Mean difference of the natural logarithms of 80 mel bands."""
    a, b = (np.log(mel_bank(1024, 80) @ magnitude(sound) + 1e-3) for sound in (original, coded))
    return float(np.abs(a - b).mean())


@dataclass(frozen=True)
class Fidelity:
    """One clip through the codec; pitches are medians in Hz, 0 where no voice was found."""

    stoi: float
    mel: float
    pitch: float
    coded_pitch: float


def fidelity(original: Sound, coded: Sound) -> Fidelity:
    from pystoi import stoi

    pitches = (world.median_pitch(sound, RATE) for sound in (original, coded))
    return Fidelity(float(stoi(original, coded, RATE)), mel_distance(original, coded), *pitches)
