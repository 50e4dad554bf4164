"""Speech of Debian's synthesizers, for users only: espeak-ng (formants), flite and festival (recorded voices)."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sound
import soundfile
from numpy.typing import NDArray


def _run(command: list[str], output: str, text: str = "") -> NDArray[np.float32]:
    """What `command` writes to the WAV file that it is told after the option `output`."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "said.wav"
        subprocess.run([*command, output, str(wav)], input=text.encode(), capture_output=True, check=True)
        samples, rate = soundfile.read(wav, dtype="float32")
    import soxr  # only where lines are rendered, not where they are trained on

    resampled = soxr.resample(samples, rate, sound.RATE).astype(np.float32)
    return sound.fade(sound.level(sound.trim(resampled)))


@dataclass(frozen=True)
class Espeak:
    """`pitch` from 0 to 99 as espeak-ng has it, `rate` in words a minute."""

    accent: str
    variant: str
    pitch: int
    rate: int

    def say(self, text: str) -> NDArray[np.float32]:
        settings = ["-v", f"{self.accent}+{self.variant}", "-p", str(self.pitch), "-s", str(self.rate)]
        return _run(["espeak-ng", *settings, text], "-w")


@dataclass(frozen=True)
class Flite:
    """`stretch` times the durations, `pitch` in Hz (read by the diphone voices and the statistical ones)."""

    voice: str
    stretch: float
    pitch: int

    def say(self, text: str) -> NDArray[np.float32]:
        settings = [f"duration_stretch={self.stretch}", f"int_f0_target_mean={self.pitch}"]
        options = [word for setting in settings for word in ("--setf", setting)]
        return _run(["flite", "-voice", self.voice, *options, "-t", text], "-o")


@dataclass(frozen=True)
class Festival:
    """A voice of festival as `(voice_NAME)` selects it, its durations times `stretch`."""

    voice: str
    stretch: float

    def say(self, text: str) -> NDArray[np.float32]:
        setup = f"(begin (voice_{self.voice}) (Parameter.set 'Duration_Stretch {self.stretch}))"
        return _run(["text2wave", "-eval", setup], "-o", text)
