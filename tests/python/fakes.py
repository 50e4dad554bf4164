"""A scripted stand-in of the core model: says given tokens at given levels, fails or is interrupted on demand.

Run as a program it is the `personaplex` command on that model; see `run_command` for its environment variables.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from personaplex import hub
from personaplex.errors import DeviceError, StreamError, WeightsError
from personaplex.model import Model
from personaplex.text import Tokenizer

PAD = 3
Script = Callable[[int], tuple[int, float]]  # step index -> text id, amplitude

CONFIG: dict[str, Any] = {
    "dim": 8,
    "num_layers": 1,
    "num_heads": 1,
    "n_q": 16,
    "codebooks": 8,
    "rows": 17,
    "card": 64,
    "text_card": 512,
    "context": 3000,
    "delays": [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1],
    "text_padding_id": PAD,
    "depformer_steps": 8,
    "frame_samples": 1920,
    "silence_codes": [0] * 8,
    "sine_codes": [1] * 8,
    "spacer_frames": 6,
}

INFO: dict[str, Any] = {
    "source": "random:tiny",
    "device": "cpu",
    "device_name": "fake",
    "engine": "graph",
    "device_note": "",
    "engine_note": "",
    "dtype": "float32",
    "kv_dtype": "float32",
    "weights_seed": 0,
    "bits": {"temporal": 16, "depformer": 16},
    "group_size": 0,
    "weight_bytes": 0,
    "kept_16bit": [],
    "compiled": False,
    "compile_note": "",
    "mlx_version": "0",
}


def says(*parts: tuple[int, float] | int, start: int = 0) -> Script:
    """A script: from step `start` on the given (text id, amplitude) one a step, padding and digital silence else."""
    spoken = [part if isinstance(part, tuple) else (part, 0.5) for part in parts]

    def script(index: int) -> tuple[int, float]:
        return spoken[index - start] if start <= index < start + len(spoken) else (PAD, 0.0)

    return script


@dataclass(frozen=True)
class FakeStepOutput:
    audio: np.ndarray
    text_token: int
    tokens: np.ndarray
    index: int
    step_ms: float
    encode_ms: float | None = None
    temporal_ms: float | None = None
    depformer_ms: float | None = None
    decode_ms: float | None = None


@dataclass(frozen=True)
class FakeSnapshot:
    prompt: str

    @property
    def nbytes(self) -> int:
        return len(self.prompt)

    def save(self, path: str, key: str) -> None:
        Path(path).write_text(json.dumps({"key": key, "prompt": self.prompt}))


class FakeSession:
    """Implements the interface of _core.Session that the package uses."""

    def __init__(self, model: "FakeModel", sampling: Any, seed: int) -> None:
        self._model, self.sampling, self.seed = model, sampling, seed
        self.prompted: str | None = None
        self.frames = 0
        self.poisoned = self.closed = False

    def prompt(
        self,
        voice_embeddings: Any = None,
        voice_cache: Any = None,
        voice_codes: Any = None,
        text_tokens: Sequence[int] = (),
        chunk: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._model.prompts += 1
        time.sleep(self._model.prompt_seconds)
        arrays = [None if a is None else a.tobytes() for a in (voice_embeddings, voice_cache, voice_codes)]
        self.prompted = hashlib.sha256(repr((arrays, list(text_tokens))).encode()).hexdigest()
        self._preset = voice_codes
        for done in (1, 2, 3):
            if progress is not None:
                progress(done, 3)

    def step(self, pcm: np.ndarray, text_token: int | None = None) -> FakeStepOutput:
        assert pcm.shape == (1920,)
        assert pcm.dtype == np.float32
        model = self._model
        if not model.loaded:
            raise DeviceError("[Session.step] the model was unloaded.")
        if self.poisoned:
            raise StreamError("[Session.step] an earlier step failed half way; reset() first.")
        assert self.prompted is not None
        time.sleep(model.step_seconds)
        if self.frames == model.interrupt_at:
            raise KeyboardInterrupt
        if self.frames == model.fail_at:
            self.poisoned = True
            raise MemoryError("out of memory in the middle of a step")
        model.heard.append(pcm.copy())
        token, amplitude = model.script(self.frames)
        token = token if text_token is None else text_token
        audio = np.where(np.arange(1920) % 2, amplitude, -amplitude).astype(np.float32)
        tokens = np.concatenate([[token], np.full(16, self.frames % 64)]).astype(np.int32)
        out = FakeStepOutput(audio, token, tokens, self.frames, 1.0 + self.frames % 10)
        self.frames += 1
        return out

    def reset(self, seed: int | None = None) -> None:
        self.frames, self.poisoned = 0, False
        self.seed = self.seed if seed is None else seed

    def clone(self, seed: int | None = None) -> "FakeSession":
        other = FakeSession(self._model, self.sampling, self.seed if seed is None else seed)
        other.frames, other.prompted = self.frames, self.prompted
        return other

    def snapshot(self) -> FakeSnapshot:
        assert self.prompted is not None
        return FakeSnapshot(self.prompted)

    def restore(self, snapshot: FakeSnapshot) -> None:
        self._model.restored += 1
        self.prompted, self.frames = snapshot.prompt, 0

    def close(self) -> None:
        self.closed = True
        self._model.closed += 1

    def voice_preset(self) -> tuple[np.ndarray, np.ndarray]:
        frames = self._preset.shape[1]
        return np.ones((frames - 1, CONFIG["dim"]), np.float32), np.zeros((17, 4), np.int64)


class FakeModel:
    """Implements the interface of _core.Model that the package uses.

    Args:
        script: what the agent says.
        fail_at, interrupt_at: step that fails half way, or that Ctrl-C hits.
        prompt_seconds, step_seconds: how long they take.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        fail_at: int = -1,
        interrupt_at: int = -1,
        prompt_seconds: float = 0.0,
        step_seconds: float = 0.0,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.script = script or says()
        self.fail_at, self.interrupt_at = fail_at, interrupt_at
        self.prompt_seconds, self.step_seconds = prompt_seconds, step_seconds
        self.config, self.info = dict(CONFIG), {**INFO, **(info or {})}
        self.loaded = True
        self.prompts = self.restored = self.closed = 0
        self.heard: list[np.ndarray] = []
        self.sessions: list[FakeSession] = []

    def session(self, sampling: Any = None, seed: int = 0) -> FakeSession:
        self.sessions.append(FakeSession(self, sampling, seed))
        return self.sessions[-1]

    def load_snapshot(self, path: str, key: str) -> FakeSnapshot:
        try:
            stored = json.loads(Path(path).read_text())
        except ValueError:
            raise WeightsError(f"[load_snapshot] {path!r} is damaged.") from None
        if stored["key"] != key:
            raise WeightsError(f"[load_snapshot] {path!r} has another key.")
        return FakeSnapshot(stored["prompt"])

    def encode(self, pcm: np.ndarray) -> np.ndarray:
        assert pcm.size % 1920 == 0
        levels = np.abs(pcm.reshape(-1, 1920)).mean(axis=1) * 63
        return np.tile(levels.astype(np.int32), (8, 1))

    def unload(self) -> None:
        self.loaded = False


def make_model(
    core: FakeModel | None = None, directory: Path | None = None, *, prompt_cache: str = "memory", **options: Any
) -> Model:
    """A Model around a fake core, as personaplex.load("random:tiny") or of a directory would make it."""
    source = hub.ModelSource("random:tiny" if directory is None else str(directory), directory)
    return Model(core or FakeModel(), source, Tokenizer.of_random(), prompt_cache=prompt_cache, **options)


def run_command(arguments: list[str]) -> int:
    """The command line on a fake model that says FAKE_TEXT and takes FAKE_STEP_SECONDS a frame."""
    from personaplex.cli import main

    ids = Tokenizer.of_random()._sp.encode(os.environ.get("FAKE_TEXT", "hello there"))
    core = FakeModel(says(*ids), step_seconds=float(os.environ.get("FAKE_STEP_SECONDS", "0")))
    return main(arguments, lambda name, **options: make_model(core))


if __name__ == "__main__":
    sys.exit(run_command(sys.argv[1:]))
