"""Who asks: the users of training, and those of the evaluation, who share no voice or synthesizer with them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from synthesizers import Espeak, Festival, Flite
from voices import HELD_OUT_STYLE, A, G, K, T, Voice


class Speaker(Protocol):
    """Anyone who can say a line: mono float32 at 24 kHz, trimmed and of one loudness."""

    def say(self, text: str) -> NDArray[np.float32]: ...


ACCENTS = ("en-us", "en-us", "en-us", "en", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-029",
           "en-gb-x-gbcwmd", "en-us-nyc")  # fmt: skip
VARIANTS = (
    "f1", "f2", "f3", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m8", "Alex", "Alicia", "Andrea", "Andy", "Denis",
    "Gene", "Jacky", "Lee", "Mario", "Marco", "Mike", "Hugo", "adam", "anika", "announcer", "antonio", "aunty",
    "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "grandma", "john", "max", "michel", "miguel",
    "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "steph2", "travis",
    "zac", "iven", "klatt2", "klatt4",
)  # fmt: skip


def _kokoro(numbers: range, rng: np.random.Generator, moved: bool) -> dict[str, Speaker]:
    """Random mixtures: none is a preset, and none has the held-out style. Not `moved`: without WORLD, twice as fast."""
    found: dict[str, Speaker] = {}
    for i in numbers:
        timbre, prosody = (dict(zip((A, G, T, K), map(float, rng.dirichlet([0.8] * 4)), strict=True)) for _ in range(2))
        pitch = float(rng.uniform(85, 140)) if timbre[K] > 0.5 else float(rng.uniform(160, 260))
        settings = (float(rng.uniform(0.9, 1.1)), float(rng.uniform(0.7, 1.1)), float(rng.uniform(1.0, 1.25)))
        found[f"kokoro{i:02}"] = Voice(timbre, prosody, *((pitch, *settings) if moved else (0, 1, 1, settings[2])))
    return found


def _espeak(numbers: range, rng: np.random.Generator) -> dict[str, Speaker]:
    def one(i: int) -> Espeak:
        accent = ACCENTS[int(rng.integers(len(ACCENTS)))]
        pitch, rate = int(rng.integers(20, 85)), int(rng.integers(125, 205))
        return Espeak(accent, VARIANTS[i % len(VARIANTS)], pitch, rate)

    return {f"espeak{i:02}": one(i) for i in numbers}


def _recorded(numbers: range, rng: np.random.Generator) -> dict[str, Speaker]:
    def one(i: int) -> Speaker:
        stretch, pitch = round(float(rng.uniform(0.85, 1.2)), 2), int(rng.integers(90, 190))
        kinds = (Flite("awb", stretch, pitch), Flite("rms", stretch, pitch), Festival("ked_diphone", stretch))
        return kinds[i % len(kinds)]

    return {f"recorded{i:02}": one(i) for i in numbers}


def training(seed: int = 7) -> dict[str, Speaker]:
    """The users of training by name: 83, then 51 more who also say the parts that questions are composed of."""
    rng = np.random.default_rng(seed)
    first = {**_kokoro(range(12), rng, True), **_espeak(range(56), rng), **_recorded(range(15), rng)}
    return {
        **first,
        **_recorded(range(15, 33), rng),
        **_espeak(range(56, 82), rng),
        **_kokoro(range(12, 19), rng, False),
    }


# Voices never trained on, of synthesizers that are.
HELD_OUT_VOICES: dict[str, Speaker] = {
    "nezumi": Voice({HELD_OUT_STYLE: 1.0}, {HELD_OUT_STYLE: 1.0}, 223),
    "nezumi_low": Voice({HELD_OUT_STYLE: 0.6, K: 0.4}, {HELD_OUT_STYLE: 0.5, K: 0.5}, 120),
    "annie": Espeak("en-us", "Annie", 50, 165),
    "michael": Espeak("en-us", "Michael", 45, 160),
    "linda": Espeak("en", "linda", 55, 170),
    "victor": Espeak("en-us", "victor", 50, 175),
    "diogo": Espeak("en-gb-scotland", "Diogo", 45, 165),
    "f4": Espeak("en-us", "f4", 65, 150),
    "kal": Festival("kal_diphone", 1.0),
}
# Ways of synthesis never trained on: HTS, and the person behind both of these voices.
HELD_OUT_SYNTHESIZERS: dict[str, Speaker] = {
    "slt_hts": Festival("cmu_us_slt_arctic_hts", 1.0),
    "slt_flite": Flite("slt", 1.0, 180),
}
