"""A loaded model: answers recordings, opens conversations, knows its voices."""

import platform
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from personaplex import _core, prompts
from personaplex.audio import FRAME, AudioLike, AudioSource
from personaplex.cache_dir import cache_dir as default_cache_dir
from personaplex.errors import WeightsError
from personaplex.generation import Generation, Progress
from personaplex.hub import ModelSource
from personaplex.prompt_cache import PromptCache, cache_key, weights_digest
from personaplex.response import Response
from personaplex.session import Session
from personaplex.text import Tokenizer, check_vocabulary
from personaplex.version import __version__
from personaplex.voices import Voice, VoiceLibrary, VoiceLike, imitate, larger_context

MAX_SEED = 2**63 - 1

# What a response tells of the model it came from.
_DESCRIBED = (
    *("device", "engine", "engine_note", "dtype", "kv_dtype"),
    *("bits", "group_size", "kept_16bit", "compiled", "compile_note"),
)


class Model:
    """PersonaPlex in memory. Made by personaplex.load().

    One model serves any number of sessions; they share its weights and are otherwise independent.

    Args:
        core: the C++ model (or anything with its interface).
        source: where it came from.
        tokenizer: its SentencePiece model.
        prompt_cache: "auto", "memory", "disk" or "off".
        cache_dir: for snapshots and unpacked voices; None for the default place.
        load_seconds: how long loading took, without downloading.
    """

    def __init__(
        self,
        core: Any,
        source: ModelSource,
        tokenizer: Tokenizer,
        *,
        prompt_cache: str = "auto",
        cache_dir: Path | None = None,
        load_seconds: float = 0.0,
    ) -> None:
        self._core = core
        self._load_seconds = load_seconds
        self._source = source
        self._tokenizer = tokenizer
        self._cache_dir = default_cache_dir(cache_dir)
        self._prompts = PromptCache(core, prompt_cache, self._cache_dir / "prompts")
        self._voices = VoiceLibrary(source.directory, self._cache_dir)
        self._lock = threading.Lock()  # of the prompt cache and the hash of the weights
        self._weights: str | None = None

    @property
    def name(self) -> str:
        """As given to load()."""
        return self._source.name

    @property
    def config(self) -> dict[str, Any]:
        """Sizes and constants of the model."""
        return dict(self._core.config)

    @property
    def info(self) -> dict[str, Any]:
        """Where and how it runs: device, engine, dtypes, threads, bits per component, bytes, versions.

        about says what kind of model it is (None for a directory), so that nobody takes `tiny` for a large one.
        device_note says why "auto" did not take an NVIDIA GPU, engine_note why not the fused engine, compile_note why
        compiling was asked for and not done, kept_16bit names what could not be quantized. frame_bytes is what a frame
        reads: of weights by its four parts, and of keys and values by visible position (temporal_kv, of 80 ms; mimi_kv,
        of 40 ms, in each direction).
        """
        return {**self._core.info, "name": self.name, "about": self._source.about, "revision": self._source.revision}

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory; False after unload()."""
        return bool(self._core.loaded)

    def voices(self) -> list[str]:
        """Names that `voice=` accepts with this model."""
        return self._voices.names()

    def session(
        self,
        voice: VoiceLike = "NATM0",
        system_prompt: str = "assistant",
        *,
        seed: int | None = None,
        greedy: bool = False,
        audio_temperature: float = 0.8,
        audio_top_k: int = 250,
        text_temperature: float = 0.7,
        text_top_k: int = 25,
        on_prompt: Callable[[int, int], None] | None = None,
    ) -> Session:
        """Opens a conversation, ready for step().

        Args:
            voice: a name, a preset file, a recording to imitate, a Voice, or "none".
            system_prompt: a preset name, any text, `@file`, or "" for none.
            seed: of the noise; None draws one (Session.seed tells it).
            greedy: the most likely token always; temperatures are ignored.
            on_prompt: called with (columns done, columns in all) while the prompt runs.

        Raises:
            ValueError: an argument out of range, an unknown voice, unusable audio.
            WeightsError: a voice that is missing or does not fit.
        """
        sampling = make_sampling(greedy, audio_temperature, audio_top_k, text_temperature, text_top_k)
        chosen = self._voices.resolve(voice, self._core)
        tokens = self._encode(prompts.resolve(system_prompt))
        return self._open(chosen, tokens, sampling, check_seed(seed), on_prompt)

    def respond_stream(
        self,
        audio: AudioLike,
        *,
        sample_rate: int | None = None,
        voice: VoiceLike = "NATM0",
        system_prompt: str = "assistant",
        max_steps: int = 200,
        seed: int | None = None,
        greedy: bool = False,
        audio_temperature: float = 0.8,
        audio_top_k: int = 250,
        text_temperature: float = 0.7,
        text_top_k: int = 25,
        keep: bool = False,
        on_progress: Progress | None = None,
        on_prompt: Callable[[int, int], None] | None = None,
    ) -> Generation:
        """Answers a recording frame by frame: an iterator of StepOutput, one per 80 ms.

        Args:
            audio: a path, file object, Audio, (array, rate), or array with `sample_rate`.
            max_steps: most frames generated after the input's end; generation ends earlier once the agent has spoken
                and then been silent for 25 frames.
            keep: remember audio and tokens, so that Generation.response() works (11 MB a minute).
            on_progress: called with (frames done, frames at most).
            Others as in session().

        Raises:
            As session(), before anything is generated.
        """
        steps = check_max_steps(max_steps)
        sampling = make_sampling(greedy, audio_temperature, audio_top_k, text_temperature, text_top_k)
        chosen_seed = check_seed(seed)
        text = prompts.resolve(system_prompt)
        source = audio if isinstance(audio, AudioSource) else AudioSource(audio, sample_rate)
        try:
            tokens = self._encode(text)
            chosen = self._voices.resolve(voice, self._core)
            session = self._open(chosen, tokens, sampling, chosen_seed, on_prompt)
        except BaseException:
            source.close()
            raise
        metadata = {
            "input": source.name,
            "voice": chosen.name,
            "system_prompt": {"name": system_prompt, "text": text, "tokens": len(tokens)},
            "seed": chosen_seed,
            "sampling": {
                "audio_temperature": 0.0 if greedy else float(audio_temperature),
                "audio_top_k": int(audio_top_k),
                "text_temperature": 0.0 if greedy else float(text_temperature),
                "text_top_k": int(text_top_k),
            },
            "max_steps": steps,
            "load_seconds": round(self._load_seconds, 3),
            "model": self._describe(),
            "versions": {
                "personaplex": __version__,
                "mlx": str(self._core.info.get("mlx_version", _core.MLX_VERSION)),
                "python": platform.python_version(),
                "numpy": np.__version__,
            },
        }
        return Generation(
            session,
            source,
            self._tokenizer,
            max_steps=steps,
            metadata=metadata,
            keep=keep,
            on_progress=on_progress,
        )

    def respond(self, audio: AudioLike, **options: Any) -> Response:
        """Answers a recording; an hour of audio needs 700 MB.

        Args:
            audio: a path, file object, Audio, (array, rate), or array with `sample_rate`.
            options: as in respond_stream(), with the same defaults: sample_rate, voice, system_prompt, max_steps, seed,
                greedy, audio_temperature, audio_top_k, text_temperature, text_top_k, on_progress, on_prompt.

        Raises:
            As respond_stream().

        The first frame of the answer is the last silent frame of the prompt; the answer is as long as the input, in
        whole frames, plus what was generated after it.
        """
        with self.respond_stream(audio, keep=True, **options) as generation:
            for _ in generation:
                pass
            return generation.response()

    def make_preset(self, recording: AudioLike, name: str = "recording") -> Voice:
        """A voice from a recording of a few seconds, as a preset that Voice.save() can write.

        Raises:
            ValueError: unusable, silent, or shorter than 0.4 s.
        """
        voice = imitate(recording, self._core)
        core = self._core.session(make_sampling(greedy=True), 0)
        try:
            core.prompt(**voice.prompt_arguments(), text_tokens=[])
            embeddings, cache = core.voice_preset()
        finally:
            core.close()
        return Voice(name, np.asarray(embeddings, np.float32), np.asarray(cache, np.int64))

    def warmup(self) -> float:
        """Runs a prompt without voice or text and two frames, so that the first answer is not slowed by first-time
        work; returns the milliseconds of the second frame. Samples by default, as answers do: a compiled frame serves
        one set of sampling options."""
        with self._open(Voice("none"), [], make_sampling(), 0, None) as session:
            session.step(np.zeros(FRAME, np.float32))
            return session.step(np.zeros(FRAME, np.float32)).step_ms

    def unload(self) -> None:
        """Gives the memory back. Using the model or its sessions afterwards raises DeviceError."""
        self._prompts.clear()
        self._core.unload()

    def __repr__(self) -> str:
        info = self._core.info
        return f"Model({self.name!r}, device={info.get('device')!r}, engine={info.get('engine')!r})"

    def _encode(self, text: str) -> list[int]:
        tokens = self._tokenizer.encode_prompt(text)
        check_vocabulary(tokens, int(self._core.config["text_card"]))
        context = int(self._core.config["context"])
        if len(tokens) >= context:
            raise ValueError(
                f"[system_prompt] the prompt has {len(tokens)} tokens, the model's context {context}; shorten it"
                f"{larger_context(context)}."
            )
        return tokens

    def _open(
        self,
        voice: Voice,
        tokens: list[int],
        sampling: Any,
        seed: int,
        on_prompt: Callable[[int, int], None] | None,
    ) -> Session:
        started = time.perf_counter()
        core = self._core.session(sampling, seed)
        try:
            key = self._key(voice, tokens)
            with self._lock:
                snapshot = self._prompts.get(key) if key else None
            if snapshot is not None:
                try:
                    core.restore(snapshot)
                except WeightsError:  # a snapshot of another shape: as good as none
                    snapshot = None
            if snapshot is None:
                core.prompt(**voice.prompt_arguments(), text_tokens=tokens, progress=on_prompt)
                if key:
                    with self._lock:
                        self._prompts.put(key, core.snapshot(), time.perf_counter() - started)
        except BaseException:
            core.close()
            raise
        return Session(core, self._tokenizer, time.perf_counter() - started)

    def _key(self, voice: Voice, tokens: list[int]) -> str | None:
        if self._prompts.mode == "off":
            return None
        if not self._prompts.uses_disk:  # lives and dies with this model: no need to hash its weights
            return f"{voice.digest} {tokens}"
        with self._lock:
            if self._weights is None:
                self._weights = weights_digest(self._source, self._core.info, self._cache_dir)
        return cache_key(self._weights, self._core.info, self._core.config, voice.digest, tokens)

    def _describe(self) -> dict[str, Any]:
        info = self._core.info
        return {
            "name": self.name,
            "revision": self._source.revision,
            **{key: info.get(key) for key in _DESCRIBED},
        }


def make_sampling(
    greedy: bool = False,
    audio_temperature: float = 0.8,
    audio_top_k: int = 250,
    text_temperature: float = 0.7,
    text_top_k: int = 25,
) -> Any:
    """The core's Sampling from checked numbers; ValueError names the one that is out of range."""
    for name, value in (("audio_temperature", audio_temperature), ("text_temperature", text_temperature)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 100.0:
            raise ValueError(f"[sampling] expected {name} from 0 (greedy) to 100, got {value!r}.")
    for name, value in (("audio_top_k", audio_top_k), ("text_top_k", text_top_k)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"[sampling] expected {name} as a whole number, 0 for all tokens, got {value!r}.")
    if greedy:
        audio_temperature = text_temperature = 0.0
    return _core.Sampling(float(text_temperature), int(text_top_k), float(audio_temperature), int(audio_top_k))


def check_seed(seed: int | None) -> int:
    """The seed, or a fresh one."""
    if seed is None:
        return secrets.randbelow(2**31)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"[sampling] expected a seed from 0 to 2**63 - 1, got {seed!r}.")
    return int(seed)


def check_max_steps(max_steps: int) -> int:
    if isinstance(max_steps, bool) or not isinstance(max_steps, (int, np.integer)) or max_steps < 0:
        raise ValueError(f"[respond] expected max_steps of 0 or more, got {max_steps!r}.")
    return int(max_steps)
