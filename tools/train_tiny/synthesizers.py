"""Speech of Debian's synthesizers, for users only: espeak-ng (formants), flite and festival (recorded voices)."""

from __future__ import annotations

import io
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

import sound


def _read(wav: bytes) -> NDArray[np.float32]:
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    return _finish(soxr.resample(samples, rate, sound.RATE).astype(np.float32))


def _finish(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return sound.fade(sound.level(sound.trim(samples)))


@dataclass(frozen=True)
class Espeak:
    """`pitch` and `span` from 0 to 99 as espeak-ng has them, `rate` in words a minute."""

    accent: str
    variant: str
    pitch: int
    rate: int
    span: int

    def say(self, text: str) -> NDArray[np.float32]:
        settings = ["-v", f"{self.accent}+{self.variant}", "-p", str(self.pitch), "-s", str(self.rate)]
        command = ["espeak-ng", *settings, "-P", str(self.span), "--stdout", text]
        return _read(subprocess.run(command, capture_output=True, check=True).stdout)


@dataclass(frozen=True)
class Flite:
    """`stretch` times the durations, `pitch` in Hz (read by the diphone voices and the statistical ones)."""

    voice: str
    stretch: float
    pitch: int

    def say(self, text: str) -> NDArray[np.float32]:
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "said.wav"
            settings = [f"duration_stretch={self.stretch}", f"int_f0_target_mean={self.pitch}"]
            command = ["flite", "-voice", self.voice, *[x for s in settings for x in ("--setf", s)], "-t", text]
            subprocess.run([*command, "-o", str(wav)], capture_output=True, check=True)
            return _read(wav.read_bytes())


@dataclass(frozen=True)
class Festival:
    """A voice of festival as `(voice_NAME)` selects it, its durations times `stretch`."""

    voice: str
    stretch: float

    def say(self, text: str) -> NDArray[np.float32]:
        setup = f"(begin (voice_{self.voice}) (Parameter.set 'Duration_Stretch {self.stretch}))"
        command = ["text2wave", "-eval", setup]
        return _read(subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout)
