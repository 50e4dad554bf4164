"""What an answer is: audio, transcript, words with times, tokens, and how it was made."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personaplex.audio import Audio
from personaplex.text import Word


@dataclass(frozen=True, repr=False)
class Response:
    """The agent's answer to a recording.

    Audio and words are on the timeline of the input: second 3 of the answer was spoken while second 3 of the user was
    heard (less one frame of lag).

    Attributes:
        audio: the agent, mono, 24 kHz, 1920 samples a frame.
        transcript: the agent's text.
        words: with times on the 80 ms grid.
        tokens: [frames, rows] int32: text, agent codes, user codes.
        metadata: JSON-ready: seed, sampling, voice, prompt, durations, elapsed, rtf, step latency, stop reason, model,
            versions.
        user: what the model heard, mono, 24 kHz, as long as `audio`.
    """

    audio: Audio
    transcript: str
    words: list[Word]
    tokens: NDArray[np.int32]
    metadata: dict[str, Any]
    user: Audio

    @property
    def stereo(self) -> Audio:
        """User left, agent right."""
        return Audio(np.stack([self.user.samples, self.audio.samples], axis=1), self.audio.sample_rate)

    def __repr__(self) -> str:
        text = self.transcript if len(self.transcript) <= 60 else f"{self.transcript[:57]}..."
        return f"Response({self.audio.duration:.2f} s, {len(self.words)} words, {text!r})"

    def _repr_html_(self) -> str:
        import html

        return f"{self.audio._repr_html_()}<p>{html.escape(self.transcript)}</p>"
