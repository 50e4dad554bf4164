"""The loop of one answer: the user's frames, then encoded silence until the agent has fallen silent."""

import resource
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personaplex.audio import FRAME, FRAME_SECONDS, SAMPLE_RATE, Audio, AudioSource, level_dbfs
from personaplex.errors import StreamError
from personaplex.response import Response
from personaplex.session import Session, StepOutput
from personaplex.text import Tokenizer

SILENT_FRAMES = 25  # 2 s
SILENT_DBFS = -50.0

Progress = Callable[[int, int], None]  # (frames done, frames at most)


class FallenSilent:
    """Says when an answer is over: the agent has spoken, and then been silent for 25 frames after the input's end.

    A frame is silent when its text id shows nothing and its level is under -50 dBFS.
    """

    def __init__(self, silent_ids: frozenset[int]) -> None:
        self._silent_ids = silent_ids
        self._spoken = False
        self._run = 0

    def update(self, text_token: int, audio: NDArray[np.float32], after_input: bool) -> bool:
        """Takes one frame of the agent; true when generation may end."""
        shown = text_token not in self._silent_ids
        self._spoken = self._spoken or shown
        quiet = after_input and not shown and level_dbfs(audio) < SILENT_DBFS
        self._run = self._run + 1 if quiet else 0
        return self._spoken and self._run >= SILENT_FRAMES


class Generation:
    """An answer in the making: an iterator of StepOutput, closed by close(), by `with`, or by its end.

    Attributes:
        stop_reason: "running", then "fallen_silent", "max_steps", or "closed" (ended by the caller).
        rest: text that the end of the answer completed.
        user_frame: [1920], what the model heard in the latest step.
    """

    def __init__(
        self,
        session: Session,
        source: AudioSource,
        tokenizer: Tokenizer,
        *,
        max_steps: int,
        metadata: dict[str, Any],
        keep: bool,
        on_progress: Progress | None = None,
    ) -> None:
        self.stop_reason = "running"
        self.rest = ""
        self.input_frames = 0
        self.user_frame = np.zeros(FRAME, np.float32)
        self._session = session
        self._source = source
        self._tokenizer = tokenizer
        self._max_steps = max_steps
        self._metadata = metadata
        self._keep = keep
        self._on_progress = on_progress
        self._done = 0
        self._kept: list[tuple[NDArray[np.float32], StepOutput]] = []  # (user frame, agent's frame)
        self._started = time.perf_counter()
        self._elapsed = 0.0
        self._steps = self._run()

    def __iter__(self) -> Iterator[StepOutput]:
        return self

    def __next__(self) -> StepOutput:
        return next(self._steps)

    def __enter__(self) -> "Generation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the answer here and frees the session. response() stays possible."""
        self._steps.close()
        self._finish("closed")

    def response(self) -> Response:
        """All that was generated so far, as a Response.

        Raises:
            StreamError: the generation was started without keep=True, so nothing was kept.
        """
        if not self._keep:
            raise StreamError("[Generation.response] nothing was kept; start it with respond_stream(..., keep=True).")
        text_row = [out.text_token for _, out in self._kept]
        return Response(
            audio=Audio(_join([out.audio for _, out in self._kept])),
            transcript=self._tokenizer.transcript(text_row),
            words=self._tokenizer.words(text_row),
            tokens=np.stack([out.tokens for _, out in self._kept]) if self._kept else np.zeros((0, 0), np.int32),
            metadata={**self._metadata, **self._measurements(text_row)},
            user=Audio(_join([frame for frame, _ in self._kept])),
        )

    def _run(self) -> Generator[StepOutput, None, None]:
        rule = FallenSilent(self._tokenizer.silent_ids)
        reason = "closed"
        try:
            for frame in self._source.frames():
                out = self._step(frame)
                self.input_frames += 1
                rule.update(out.text_token, out.audio, after_input=False)
                yield out
            silence = np.zeros(FRAME, np.float32)
            for _ in range(self._max_steps):
                out = self._step(silence)
                ended = rule.update(out.text_token, out.audio, after_input=True)
                yield out
                if ended:
                    reason = "fallen_silent"
                    return
            reason = "max_steps"
        finally:
            self._finish(reason)

    def _step(self, frame: NDArray[np.float32]) -> StepOutput:
        out = self._session.step(frame)
        self.user_frame = frame
        if self._keep:
            self._kept.append((frame, out))  # one append: an interrupt leaves both or none
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, max(self._done, self._source.frame_count + self._max_steps))
        return out

    def _finish(self, reason: str) -> None:
        if self.stop_reason != "running":
            return
        self.stop_reason = reason
        self._elapsed = time.perf_counter() - self._started
        self.rest = self._session.flush_text()
        self._source.close()
        self._session.close()

    def _measurements(self, text_row: list[int]) -> dict[str, Any]:
        frames = len(self._kept)
        step_ms = [out.step_ms for _, out in self._kept]
        running = self.stop_reason == "running"
        elapsed = (time.perf_counter() - self._started if running else self._elapsed) + self._session.prompt_seconds
        seconds = frames * FRAME_SECONDS
        p50, p95, p99 = (float(p) for p in np.percentile(step_ms or [0.0], [50, 95, 99]))
        return {
            "stop_reason": self.stop_reason,
            "durations": {"input": round(self._source.duration, 3), "output": round(seconds, 3)},
            "sample_rate": SAMPLE_RATE,
            "peak_memory_bytes": _peak_memory(),
            "elapsed": round(elapsed, 3),
            "prompt_elapsed": round(self._session.prompt_seconds, 3),
            # Below 1 is faster than real time.
            "rtf": round(elapsed / seconds, 4) if seconds else None,
            "step_ms": {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3)},
            "tokens": {
                "prompt": self._metadata["system_prompt"]["tokens"],
                "input_frames": self.input_frames,
                "output_frames": frames,
                "text": sum(t not in self._tokenizer.silent_ids for t in text_row),
            },
        }


def _peak_memory() -> int:
    """Bytes of main memory that the process has occupied at the most, memory-mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _join(frames: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(frames) if frames else np.zeros(0, np.float32)
