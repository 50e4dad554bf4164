"""One full-duplex conversation: 1920 samples of the user in, one frame of the agent out."""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from personaplex.audio import FRAME
from personaplex.errors import StreamError
from personaplex.text import Detokenizer, Tokenizer


@dataclass(frozen=True)
class StepOutput:
    """One frame (80 ms) of the agent.

    The first frame of a conversation is the last silent frame of the prompt: what the agent answers to user frame i
    comes out with step i + 1, so output lags the user by one frame.

    Attributes:
        audio: [1920] float32 at 24 kHz.
        text: what this frame completes of the shown text, often "".
        text_token: the raw text id; 0 and 3 show nothing.
        tokens: [rows] int32: text, agent codes, user codes of the frame.
        index: 0 for the first step.
        step_ms: how long the step took.
        encode_ms, temporal_ms, depformer_ms, decode_ms: its parts, Mimi's first and last, between them the language
            model's, text head and text token in the first of these; None unless set_timing(True).
    """

    audio: NDArray[np.float32]
    text: str
    text_token: int
    tokens: NDArray[np.int32]
    index: int
    step_ms: float
    encode_ms: float | None = None
    temporal_ms: float | None = None
    depformer_ms: float | None = None
    decode_ms: float | None = None


class Session:
    """A conversation after its prompt. Made by Model.session(); a context manager.

    Not to be used from two threads at once: the second call raises StreamError.

    Args:
        core: a core session whose prompt is done.
        tokenizer: turns its text ids into text.
        prompt_seconds: how long the prompt took, or its snapshot took to restore.
    """

    def __init__(self, core: Any, tokenizer: Tokenizer, prompt_seconds: float = 0.0) -> None:
        self._core = core
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer)
        self._busy = threading.Lock()
        self._closed = False
        self.prompt_seconds = prompt_seconds

    @property
    def seed(self) -> int:
        """The seed of the noise, given or drawn; opening a session with it makes the same conversation again."""
        return int(self._core.seed)

    @property
    def frames(self) -> int:
        """Steps since the prompt."""
        return int(self._core.frames)

    @property
    def poisoned(self) -> bool:
        """A step failed half way; only reset() and close() are left."""
        return bool(self._core.poisoned)

    def step(self, pcm: ArrayLike, text: int | None = None) -> StepOutput:
        """Hears one frame and speaks one.

        Args:
            pcm: [1920] of the user at 24 kHz, float (full scale 1.0) or int16.
            text: a text id that the agent must take instead of sampling one.

        Raises:
            ValueError: not 1920 finite samples; nothing has moved.
            StreamError: closed, poisoned, or in use by another thread.
        """
        frame = _check_frame(pcm)
        with _Exclusive(self, "step"):
            out = self._core.step(frame, text)
            shown = self._detokenizer.push(out.text_token)
        return StepOutput(
            *(out.audio, shown, out.text_token, out.tokens, out.index),
            *(out.step_ms, out.encode_ms, out.temporal_ms, out.depformer_ms, out.decode_ms),
        )

    def set_timing(self, on: bool) -> None:
        """Whether steps tell what their parts took.

        The parts then run one by one, and a step takes a little longer: most of all on a GPU, which otherwise does a
        whole frame without the host, and with the graph engine.
        """
        with _Exclusive(self, "set_timing"):
            self._core.set_timing(on)

    def flush_text(self) -> str:
        """The rest of the text at the end of a conversation: an unfinished character, shown as U+FFFD."""
        return self._detokenizer.flush()

    def reset(self, seed: int | None = None) -> None:
        """Back to the moment after the prompt, with the same seed or another; clears poison."""
        with _Exclusive(self, "reset"):
            self._core.reset(seed)
            self._detokenizer = Detokenizer(self._tokenizer)

    def clone(self, seed: int | None = None) -> "Session":
        """An independent copy of the conversation as it is now, with the same noise or, given a seed, its own."""
        with _Exclusive(self, "clone"):
            other = Session(self._core.clone(seed), self._tokenizer, self.prompt_seconds)
            other._detokenizer = self._detokenizer.copy()
        return other

    def close(self) -> None:
        """Gives the state back to the model; closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._core.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Exclusive:
    """One caller at a time, refused rather than queued; also refuses a closed session."""

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = session, name

    def __enter__(self) -> None:
        if self._session._closed:
            raise StreamError(f"[Session.{self._name}] the session is closed; open another with Model.session().")
        if not self._session._busy.acquire(blocking=False):
            raise StreamError(
                f"[Session.{self._name}] another thread is using this session; give each thread its own (clone())."
            )

    def __exit__(self, *_: object) -> None:
        self._session._busy.release()


def _check_frame(pcm: ArrayLike) -> NDArray[np.float32]:
    frame = np.asarray(pcm)
    if frame.dtype == np.int16:
        frame = frame.astype(np.float32) / 32768.0
    if frame.shape != (FRAME,) or frame.dtype.kind != "f":
        raise ValueError(f"[Session.step] expected {FRAME} float32 samples, got {list(frame.shape)} of {frame.dtype}.")
    if not np.isfinite(frame).all():
        raise ValueError(f"[Session.step] sample {int(np.argmin(np.isfinite(frame)))} is not a finite number.")
    return np.ascontiguousarray(frame, np.float32)
