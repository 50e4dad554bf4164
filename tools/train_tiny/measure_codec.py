"""What the codec does to clips it never saw: `python measure_codec.py CORPUS codec.pt [--limit N]`; STOI, mel, pitch.

Presets say held-out lines; strangers (held-out voices and synthesizers) say questions. One line a speaker, then means.
Needs `pystoi` and `pyworld-prebuilt`. Words are the business of a recogniser, not of this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mimi
import numpy as np
import shards
import torch
import world
from losses import Spectra
from numpy.typing import NDArray
from pystoi import stoi
from torch import nn
from voices import PRESETS


def through(codec: nn.Module, sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sound encoded and decoded from silence, as long as it was."""
    padded = np.zeros((len(sound) // mimi.FRAME + 2) * mimi.FRAME, np.float32)
    padded[: len(sound)] = sound
    return codec.decode(codec.encode(torch.from_numpy(padded)[None, None]))[0, 0].numpy()[: len(sound)]


def compare(spectra: Spectra, original: NDArray[np.float32], coded: NDArray[np.float32]) -> tuple[float, ...]:
    """STOI, L1 of the log-mel spectra, median pitch in Hz of both (0: no voice found)."""
    a, b = (spectra.mel1024 @ spectra.magnitude(torch.from_numpy(x)[None], 1024) for x in (original, coded))
    mel = float(((a + 1e-3).log() - (b + 1e-3).log()).abs().mean())
    pitches = (world.median_pitch(x, mimi.RATE) for x in (original, coded))
    return float(stoi(original, coded, mimi.RATE)), mel, *pitches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("--limit", type=int, default=6, help="clips of a speaker")
    options = parser.parse_args()
    codec, _ = mimi.load(options.codec)
    spectra = Spectra()
    rows: dict[str, list[tuple[float, ...]]] = {}
    with torch.no_grad():
        for clip in shards.read(options.corpus, "evaluation"):
            mine = rows.setdefault(clip.speaker, [])
            if len(mine) < options.limit and len(clip.samples) > mimi.RATE // 2:
                sound = clip.samples.astype(np.float32) / 32768
                mine.append(compare(spectra, sound, through(codec, sound)))
    means = {name: np.mean(found, 0) for name, found in rows.items() if found}
    for name, (intelligible, mel, before, after) in means.items():
        off = 100 * (after / before - 1)
        print(f"{name:12} STOI {intelligible:.3f} mel {mel:.3f} pitch {before:.0f} -> {after:.0f} Hz ({off:+.0f} %)")
    presets = np.array([means[name] for name in means if name in PRESETS])
    strangers = np.array([means[name] for name in means if name not in PRESETS])
    for group, table in (("presets", presets), ("strangers", strangers)):
        if len(table):
            print(f"{group}: {len(table)} speakers, STOI {table[:, 0].mean():.3f}, mel {table[:, 1].mean():.3f}")
    if len(presets) > 1:
        print(f"pitch of presets: correlation {np.corrcoef(presets[:, 2], presets[:, 3])[0, 1]:.3f}")


if __name__ == "__main__":
    main()
