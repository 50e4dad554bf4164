"""Bands of a spectrum as matrices: mel triangles, and the third octaves of STOI."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RATE = 24000


def mel_bank(window: int, bands: int, rate: int = RATE) -> NDArray[np.float32]:
    """Triangles on the mel scale [bands, window / 2 + 1], at least a bin wide."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * math.log10(1 + rate / 2 / 700), bands + 2) / 2595) - 1)
    hz = np.linspace(0, rate / 2, window // 2 + 1)[None]
    rise = (hz - edges[:-2, None]) / np.maximum(edges[1:-1] - edges[:-2], rate / window)[:, None]
    fall = (edges[2:, None] - hz) / np.maximum(edges[2:] - edges[1:-1], rate / window)[:, None]
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)


def third_octaves(window: int, rate: int = RATE, bands: int = 15, lowest: float = 150.0) -> NDArray[np.float32]:
    """The bands of STOI [bands, window / 2 + 1]: a third of an octave each from 150 Hz."""
    centres = lowest * 2.0 ** (np.arange(bands) / 3)
    hz = np.linspace(0, rate / 2, window // 2 + 1)[None]
    inside = (hz >= centres[:, None] * 2 ** (-1 / 6)) & (hz < centres[:, None] * 2 ** (1 / 6))
    return inside.astype(np.float32)
