"""The 18 preset voices: weighted sums of Kokoro's styles, then pitch and formants moved by WORLD; all deterministic."""

from __future__ import annotations

from dataclasses import dataclass

import kokoro
import numpy as np
import sound
import world
from numpy.typing import NDArray

A, G, T, K = "jf_alpha", "jf_gongitsune", "jf_tebukuro", "jm_kumo"
HELD_OUT_STYLE = "jf_nezumi"  # in no preset and no training speaker: for the evaluation


@dataclass(frozen=True)
class Voice:
    """A speaker. `pitch` is the median of its lines in Hz, which every line is moved to as a whole; 0: as it comes."""

    timbre: kokoro.Weights
    prosody: kokoro.Weights
    pitch: float
    formants: float = 1.0
    span: float = 1.0
    speed: float = 1.1

    def say(self, text: str) -> NDArray[np.float32]:
        """Trimmed and levelled speech at 24 kHz."""
        raw = kokoro.speak(text, self.timbre, self.prosody, self.speed)
        moved = world.move(raw, kokoro.RATE, self.pitch, self.formants, self.span) if self.pitch else raw
        return sound.fade(sound.level(sound.trim(moved)))


# NAT: close to one style; VAR: farther away and livelier. Pitches lie at least 4 % apart within a sex, and neighbours
# in pitch differ in formants or timbre.
PRESETS: dict[str, Voice] = {
    "NATF0": Voice({A: 1.0}, {A: 0.6, G: 0.4}, 205, 1.00, 0.8),
    "NATF1": Voice({G: 1.0}, {G: 1.0}, 184, 0.97, 0.8),
    "NATF2": Voice({T: 0.4, G: 0.6}, {A: 0.3, G: 0.7}, 225, 1.03, 0.8),
    "NATF3": Voice({A: 0.7, K: 0.3}, {G: 0.7, K: 0.3}, 194, 1.06, 0.8),
    "NATM0": Voice({K: 1.0}, {K: 1.0}, 104, 1.00, 0.8),
    "NATM1": Voice({K: 0.7, G: 0.3}, {K: 0.85, G: 0.15}, 92, 0.94, 0.8),
    "NATM2": Voice({K: 0.65, A: 0.35}, {K: 0.8, A: 0.2}, 118, 0.98, 0.8),
    "NATM3": Voice({K: 1.25, A: -0.25}, {K: 1.0}, 98, 1.05, 0.8),
    "VARF0": Voice({A: 0.5, G: 0.5}, {A: 1.0}, 238, 1.08, 1.0),
    "VARF1": Voice({G: 0.75, K: 0.25}, {G: 0.7, K: 0.3}, 170, 0.94, 0.6, 1.05),
    "VARF2": Voice({T: 0.6, G: 0.4}, {T: 0.3, G: 0.7}, 262, 1.10, 0.8, 1.05),
    "VARF3": Voice({A: 1.3, T: -0.3}, {A: 0.8, T: 0.2}, 215, 0.95, 1.1),
    "VARF4": Voice({G: 1.25, A: -0.25}, {G: 0.8, A: 0.2}, 250, 1.00, 1.1),
    "VARM0": Voice({K: 1.0}, {K: 1.1, G: -0.1}, 80, 0.88, 0.7),
    "VARM1": Voice({K: 0.6, T: 0.4}, {K: 0.8, T: 0.2}, 127, 1.00, 1.1),
    "VARM2": Voice({K: 1.3, G: -0.3}, {K: 1.1, G: -0.1}, 86, 1.09, 0.9),
    "VARM3": Voice({K: 0.6, G: 0.4}, {K: 0.7, G: 0.3}, 112, 0.87, 1.0),
    "VARM4": Voice({K: 0.4, T: 0.4, A: 0.2}, {K: 0.7, A: 0.3}, 137, 0.92, 1.1),
}
