"""Voices: the 18 names, preset files, recordings to imitate; each becomes what the voice phase of a prompt is fed."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from personaplex import _core, loudness, pt
from personaplex.archive import unpack_voices
from personaplex.audio import FRAME_SECONDS, SAMPLE_RATE, AudioLike, AudioSource, split_frames
from personaplex.errors import WeightsError
from personaplex.hints import did_you_mean

# NAT: recorded to sound natural; VAR: more varied. F and M: female and male.
VOICES: dict[str, str] = {
    **{f"NATF{i}": "natural, female" for i in range(4)},
    **{f"NATM{i}": "natural, male" for i in range(4)},
    **{f"VARF{i}": "varied, female" for i in range(5)},
    **{f"VARM{i}": "varied, male" for i in range(5)},
}

PRESET_SUFFIXES = (".safetensors", ".pt")
_RANDOM_FRAMES = 25
DEFAULT_CONTEXT = 3000  # positions, 4 min


@dataclass(frozen=True)
class Voice:
    """What the voice phase is fed: a replayed preset, codes, or nothing.

    Attributes:
        name: for messages and metadata.
        embeddings: [V, dim] float32, replayed as inputs of the temporal transformer.
        cache: [rows, max_delay + 3] int64, the token ring after them.
        codes: [Q, frames] int32, fed as the agent's own codes instead.
    """

    name: str
    embeddings: NDArray[np.float32] | None = None
    cache: NDArray[np.int64] | None = None
    codes: NDArray[np.int32] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the content, whatever the voice is called."""
        digest = hashlib.sha256()
        for label, array in (("embeddings", self.embeddings), ("cache", self.cache), ("codes", self.codes)):
            if array is not None:
                digest.update(f"{label}{list(array.shape)}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def prompt_arguments(self) -> dict[str, Any]:
        """The keyword arguments of the core's Session.prompt."""
        return {"voice_embeddings": self.embeddings, "voice_cache": self.cache, "voice_codes": self.codes}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a preset file (.safetensors); ValueError for a voice that is only codes."""
        if self.embeddings is None or self.cache is None:
            raise ValueError(f"[Voice.save] voice {self.name!r} is no preset; make one with Model.make_preset().")
        target = Path(path)
        if target.suffix != ".safetensors":
            raise ValueError(f"[Voice.save] expected a .safetensors path, got {target.name!r}.")
        count, dim = self.embeddings.shape
        tensors: dict[str, NDArray[Any]] = {
            "embeddings": self.embeddings.reshape(count, 1, 1, dim),
            "cache": self.cache[None],
        }
        _core.write_tensors(str(target), tensors, {"format": "personaplex-voice"})
        return target


VoiceLike = Voice | AudioLike


class Encoder(Protocol):
    """The part of the core model that a voice needs."""

    @property
    def config(self) -> Mapping[str, Any]: ...
    def encode(self, pcm: NDArray[np.float32]) -> NDArray[np.int32]: ...


class VoiceLibrary:
    """Finds the voices of one model.

    Args:
        directory: the checkpoint, or None for a random model, which has 18 random voices.
        cache: where voices.tgz is unpacked.
    """

    def __init__(self, directory: Path | None, cache: Path) -> None:
        self._directory = directory
        self._cache = cache

    def files(self) -> dict[str, Path]:
        """Name -> preset file of the checkpoint. Reads voices/, else unpacks voices.tgz."""
        if self._directory is None:
            return {}
        folder = self._directory / "voices"
        packed = self._directory / "voices.tgz"
        if not folder.is_dir() and packed.is_file():
            folder = unpack_voices(packed, self._cache)
        found = {p.stem: p for suffix in reversed(PRESET_SUFFIXES) for p in sorted(folder.glob(f"*{suffix}"))}
        return {name: path for name, path in found.items() if not name.startswith(".")}

    def names(self) -> list[str]:
        """What `resolve` accepts by name, the documented 18 first."""
        return self._names(self.files())

    def _names(self, files: Mapping[str, Path]) -> list[str]:
        available = set(VOICES) if self._directory is None else set(files)
        return [name for name in VOICES if name in available] + sorted(available - set(VOICES))

    def resolve(self, voice: VoiceLike, model: Encoder) -> Voice:
        """A name in any case, a preset file, a recording (path, file, `(array, rate)`, `Audio`), a `Voice`, "none".

        Raises:
            ValueError: neither a voice nor a file, or a recording that cannot be used.
            WeightsError: the checkpoint lacks the voice, or the preset does not fit the model.
        """
        if isinstance(voice, Voice):
            return voice
        if not isinstance(voice, (str, os.PathLike)):
            return imitate(voice, model)
        text = os.fspath(voice)
        if text.lower() == "none":
            return Voice("none")
        path = Path(text).expanduser()
        if path.is_file():
            return load_preset(path, model.config) if path.suffix in PRESET_SUFFIXES else imitate(path, model)
        asked = path.stem if path.suffix in PRESET_SUFFIXES and path.name == text else text
        files = self.files()
        known = self._names(files)
        name = asked if asked in known else next((each for each in known if each.lower() == asked.lower()), None)
        if name is None:
            raise self._unknown(text, asked, known)
        if self._directory is None:
            return random_voice(name, model.config)
        return load_preset(files[name], model.config)

    def _unknown(self, text: str, name: str, names: list[str]) -> Exception:
        known = ", ".join(names) or "none"
        if name.upper() in VOICES:
            return WeightsError(f"[voice] {str(self._directory)!r} has no voice {name.upper()}; it has: {known}.")
        hint = did_you_mean(name, names)
        return ValueError(f"[voice] {text!r} is neither a voice nor a file{hint}; voices of this model: {known}.")


def load_preset(path: Path, config: Mapping[str, Any]) -> Voice:
    """Reads a .safetensors or .pt preset and checks it against the model.

    Raises:
        WeightsError: unreadable, or made for another model.
    """
    tensors = pt.read_voice(path) if path.suffix == ".pt" else _core.read_tensors(str(path))
    where = f"[voice] {str(path)!r}"
    missing = [name for name in ("embeddings", "cache") if name not in tensors]
    if missing:
        found = ", ".join(sorted(tensors)) or "nothing"
        raise WeightsError(f"{where}: expected tensors embeddings and cache, found {found}.")
    embeddings = _matrix(np.asarray(tensors["embeddings"]), 0)
    cache = _matrix(np.asarray(tensors["cache"]), -2)
    dim, rows = int(config["dim"]), int(config["rows"])
    ring = max(config["delays"]) + 3
    if embeddings is None or embeddings.shape[1] != dim or len(embeddings) == 0:
        shape = list(np.shape(tensors["embeddings"]))
        raise WeightsError(f"{where}: expected embeddings [V, 1, 1, {dim}], found {shape}; another model's voice?")
    if len(embeddings) > (context := int(config["context"])):
        raise WeightsError(
            f"{where}: its {len(embeddings)} frames do not fit the model's context of {context}; "
            f"choose a shorter voice{larger_context(context)}."
        )
    if cache is None or cache.shape != (rows, ring):
        raise WeightsError(f"{where}: expected cache [1, {rows}, {ring}], found {list(np.shape(tensors['cache']))}.")
    if not np.isfinite(embeddings).all():
        raise WeightsError(f"{where}: embeddings contain NaN or infinity.")
    limits = np.full((rows, 1), int(config["card"]))
    limits[0] = int(config["text_card"])
    if not np.array_equal(cache, np.round(cache)) or (cache < -1).any() or (cache > limits).any():
        raise WeightsError(f"{where}: cache holds numbers that are no tokens of this model.")
    return Voice(path.stem, np.ascontiguousarray(embeddings, np.float32), np.ascontiguousarray(cache, np.int64))


def imitate(recording: AudioLike, model: Encoder) -> Voice:
    """A voice from sound: resampled to 24 kHz mono, normalised to -24 LUFS, encoded.

    Raises:
        ValueError: unusable audio, shorter than 0.4 s, silent, or longer than the context.
    """
    source = AudioSource(recording)
    longest = int(model.config["context"])
    if source.frame_count > longest:
        source.close()
        raise ValueError(
            f"[voice] the recording to imitate has {source.duration:.0f} s; a few seconds are enough, "
            f"{longest * FRAME_SECONDS:.0f} s the most; shorten it{larger_context(longest)}."
        )
    pcm = loudness.normalize(source.read(), SAMPLE_RATE)
    codes = model.encode(split_frames(pcm).reshape(-1))
    name = Path(source.name).name if source.name else "recording"
    return Voice(name, codes=np.ascontiguousarray(codes, np.int32))


def random_voice(name: str, config: Mapping[str, Any]) -> Voice:
    """A voice of a random model: codes drawn from the name alone, the same on every machine."""
    books, card = int(config["codebooks"]), int(config["card"])
    noise = hashlib.shake_256(f"voice {name}".encode()).digest(4 * books * _RANDOM_FRAMES)
    codes = np.frombuffer(noise, "<u4").astype(np.int64) % card
    return Voice(name, codes=codes.reshape(books, _RANDOM_FRAMES).astype(np.int32))


def larger_context(context: int) -> str:
    """The other way out of a prompt that is too long, where the context has been made smaller than usual."""
    return ", or load the model with a larger context (--context)" if context < DEFAULT_CONTEXT else ""


def _matrix(array: NDArray[Any], keep: int) -> NDArray[Any] | None:
    """[.., 1, .., n] -> 2-D when all axes but number `keep` and the last have length 1, else None."""
    if array.ndim < 2 or prod(array.shape[:-1]) != array.shape[keep]:
        return None
    return array.reshape(array.shape[keep], array.shape[-1])
