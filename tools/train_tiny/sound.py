"""Clips as the corpus keeps them: trimmed, of one loudness, 24 kHz mono."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 24000
FRAME = 1920  # samples of a frame of 80 ms
ACTIVE_RMS = 0.08  # of the samples that are not silence
KEEP = 0.02  # seconds left around the speech


def trim(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without what is below 1 % of the peak at both ends, but for 20 ms of it."""
    loud = np.flatnonzero(np.abs(sound) > 0.01 * max(1e-3, float(np.abs(sound).max(initial=0))))
    if len(loud) == 0:
        return sound[:1]
    keep = int(KEEP * RATE)
    return sound[max(0, loud[0] - keep) : loud[-1] + keep]


def level(sound: NDArray[np.float32], rms: float = ACTIVE_RMS) -> NDArray[np.float32]:
    """At the loudness of the corpus, never above 0.9 of full scale."""
    peak = float(np.abs(sound).max(initial=0))
    if peak == 0:
        return sound
    active = sound[np.abs(sound) > 0.02 * peak]
    gain = min(rms / float(np.sqrt(np.mean(active**2))), 0.9 / peak)
    return (sound * gain).astype(np.float32)


def fade(sound: NDArray[np.float32], seconds: float = 0.005) -> NDArray[np.float32]:
    """Both ends ramped, so that a cut never clicks."""
    n = min(int(seconds * RATE), len(sound) // 2)
    out = sound.copy()
    ramp = np.linspace(0, 1, n, endpoint=False, dtype=np.float32)
    out[:n] *= ramp
    out[len(out) - n :] *= ramp[::-1]
    return out
