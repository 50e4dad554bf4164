"""Another speaker from the same words: pitch and formants moved with the WORLD vocoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FLOOR, CEILING = 55.0, 600.0  # Hz, searched for the pitch


def pitch(sound: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Hz in frames of 5 ms; 0 where the sound has no voice."""
    import pyworld

    f0, times = pyworld.harvest(sound.astype(np.float64), rate, f0_floor=FLOOR, f0_ceil=CEILING)
    return pyworld.stonemask(sound.astype(np.float64), f0, times, rate)


def median_pitch(sound: NDArray[np.float32], rate: int) -> float:
    """Median over the voiced frames in Hz; 0 for a sound without any."""
    f0 = pitch(sound, rate)
    return float(np.median(f0[f0 > 0])) if (f0 > 0).any() else 0.0


def warp(rows: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """Spectra [frames, bins] with everything at frequency f moved to f * ratio; the last bin is repeated above."""
    bins = np.arange(rows.shape[1])
    source = np.minimum(bins / ratio, bins[-1])
    low = np.minimum(source.astype(int), bins[-1] - 1)
    part = source - low
    return np.ascontiguousarray(rows[:, low] * (1 - part) + rows[:, low + 1] * part)


def move(
    sound: NDArray[np.float32], rate: int, median: float = 0.0, formants: float = 1.0, span: float = 1.0
) -> NDArray[np.float32]:
    """The sound with its median pitch at `median` Hz (0: where it is), the pitch's excursions around it to the power
    `span`, and its formants at `formants` times their frequency. Same length to within a frame of 5 ms."""
    import pyworld

    x = sound.astype(np.float64)
    f0, times = pyworld.harvest(x, rate, f0_floor=FLOOR, f0_ceil=CEILING)
    f0 = pyworld.stonemask(x, f0, times, rate)
    envelope = pyworld.cheaptrick(x, f0, times, rate)
    noise = pyworld.d4c(x, f0, times, rate)
    voiced = f0 > 0
    if voiced.any():
        middle = np.median(f0[voiced])
        f0[voiced] = (median or middle) * (f0[voiced] / middle) ** span
    if formants != 1.0:
        envelope = np.exp(warp(np.log(envelope), formants))
        noise = warp(noise, formants)
    return pyworld.synthesize(f0, envelope, noise, rate).astype(np.float32)[: len(sound)]
