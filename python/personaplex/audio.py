"""Audio in and out: any file or array becomes frames of 1920 float32 samples at 24 kHz, mono."""

import base64
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

logger = logging.getLogger(__name__)

SAMPLE_RATE = 24000  # Hz
FRAME = 1920  # samples, 80 ms
FRAME_SECONDS = FRAME / SAMPLE_RATE
_BLOCK = 1 << 16  # samples read from a file at a time

AudioLike = Union[str, "os.PathLike[str]", IO[bytes], "Audio", tuple[ArrayLike, int], ArrayLike]


class Audio:
    """Sound in memory.

    Attributes:
        samples: [n] (mono) or [n, channels] float32; full scale is 1.0.
        sample_rate: in Hz.
    """

    def __init__(self, samples: ArrayLike, sample_rate: int = SAMPLE_RATE) -> None:
        self.samples = _to_float(samples)
        self.sample_rate = _check_rate(sample_rate)

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file in the format that the suffix names (.wav, .flac, .ogg, .mp3, ...); returns its path.

        Raises:
            ValueError: the suffix names no format.
            OSError: the file cannot be written.
        """
        import soundfile

        target = Path(path)
        kind = check_suffix(target)
        # soundfile reports an unwritable path without the reason, so the file is opened here.
        # One conversion to 16 bits for files and streams: soundfile would scale by 32768 instead.
        whole = soundfile.default_subtype(kind) == "PCM_16"
        with target.open("wb") as file:
            soundfile.write(file, to_int16(self.samples) if whole else self.samples, self.sample_rate, format=kind)
        return target

    def wav_bytes(self) -> bytes:
        """The sound as a 16-bit WAV file."""
        import soundfile

        buffer = io.BytesIO()
        soundfile.write(buffer, to_int16(self.samples), self.sample_rate, format="WAV", subtype="PCM_16")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.wav_bytes()).decode("ascii")
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if dtype is None or np.dtype(dtype) == self.samples.dtype:
            return self.samples.copy() if copy else self.samples
        if copy is False:
            raise ValueError(f"[Audio] float32 samples become {np.dtype(dtype)} only by copying.")
        return self.samples.astype(dtype)

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"Audio({self.duration:.2f} s, {self.sample_rate} Hz)"


def check_suffix(path: Path) -> str:
    """The soundfile format that a file name's suffix stands for; ValueError when it stands for none."""
    import soundfile

    kind = {"AIF": "AIFF", "OGA": "OGG", "OPUS": "OGG"}.get(path.suffix[1:].upper(), path.suffix[1:].upper())
    if kind not in soundfile.available_formats() or kind == "RAW":
        raise ValueError(f"[Audio.write] {path.name!r} has no audio suffix; use .wav, .flac, .ogg or .mp3.")
    return kind


class AudioSource:
    """Something to be heard, opened and checked, but read only as its frames are asked for.

    An hour from a path takes a few hundred kilobytes: blocks are mixed to mono, resampled and cut as a stream.

    Args:
        source: a path, a binary file object that can seek, an `Audio`, `(samples, rate)`, or an array [n] or
            [n, channels] of int16, int32, uint8 or float.
        sample_rate: Hz, needed for a bare array and refused otherwise.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not audio, empty, a NaN or infinite sample, an array without a rate or of another type.
    """

    def __init__(self, source: AudioLike, sample_rate: int | None = None) -> None:
        self.name: str | None = None
        self._samples: NDArray[np.float32] | None = None
        self._file: Any = None
        if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
            if sample_rate is not None:
                raise ValueError("[audio] sample_rate goes with an array; a file knows its own.")
            self._open(source)
        else:
            samples: Any = source
            if isinstance(source, Audio):
                samples, sample_rate = source.samples, source.sample_rate
            elif isinstance(source, tuple) and len(source) == 2 and np.ndim(source[1]) == 0:
                samples, sample_rate = source
            if sample_rate is None:
                raise ValueError("[audio] an array needs its rate: pass sample_rate=..., or (array, rate).")
            self.sample_rate = _check_rate(sample_rate)
            self._samples = _to_float(samples)
            self.length = len(self._samples)
            _check_finite(self._samples, 0, None)
        if self.length == 0:
            self.close()
            raise ValueError(f"[audio] {self._what} is empty: it has no samples.")

    def _open(self, source: Any) -> None:
        import soundfile

        if isinstance(source, (str, os.PathLike)):
            path = Path(source).expanduser()
            self.name = str(source)
            if path.is_dir():
                raise ValueError(f"[audio] {self.name!r} is a folder, not an audio file.")
            path.open("rb").close()  # the operating system's own words for missing and forbidden files
            source = str(path)
        elif isinstance(getattr(source, "name", None), str):
            self.name = source.name
        try:
            self._file = soundfile.SoundFile(source)
        except (soundfile.LibsndfileError, TypeError) as error:
            raise ValueError(
                f"[audio] {self.name or 'the file object'!r} is not an audio file that can be read ({error}); "
                "convert it to WAV or FLAC."
            ) from None
        self.sample_rate = _check_rate(self._file.samplerate, self.name)
        self.length = self._file.frames
        if self._file.subtype in ("FLOAT", "DOUBLE"):  # only these can hold NaN; checked before anything is generated
            at = 0
            for block in self._read_blocks():
                _check_finite(block, at, self.name)
                at += len(block)
            self._file.seek(0)

    @property
    def _what(self) -> str:
        return "the input" if self.name is None else repr(self.name)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.length / self.sample_rate

    @property
    def frame_count(self) -> int:
        """How many frames `frames()` is expected to give (exact but for a frame of rounding when resampling)."""
        return max(1, -(-self.length * SAMPLE_RATE // (self.sample_rate * FRAME)))

    def frames(self) -> Iterator[NDArray[np.float32]]:
        """Frames [1920] float32 at 24 kHz, the last one padded with zeros. To be called once; closes the file."""
        rest = np.zeros(0, np.float32)
        loudest = 0.0
        try:
            for block in self._resampled():
                loudest = max(loudest, float(np.abs(block).max(initial=0.0)))
                rest = np.concatenate([rest, block])
                whole = len(rest) // FRAME * FRAME
                yield from rest[:whole].reshape(-1, FRAME)
                rest = rest[whole:]
            if len(rest):
                yield np.pad(rest, (0, FRAME - len(rest)))
        finally:
            self.close()
        if loudest > 1.0:
            logger.warning(
                "[audio] %s is louder than full scale (peak %.2f); it is used as it is.", self._what, loudest
            )

    def read(self) -> NDArray[np.float32]:
        """All samples [n] at 24 kHz, mono, unpadded."""
        try:
            return np.concatenate(list(self._resampled()))
        finally:
            self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        if self._samples is not None:
            for start in range(0, self.length, _BLOCK):
                yield _mono(self._samples[start : start + _BLOCK])
        else:
            for block in self._read_blocks():
                yield _mono(block)

    def _read_blocks(self) -> Iterator[NDArray[np.float32]]:
        import soundfile

        try:
            yield from self._file.blocks(_BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"[audio] {self._what} cannot be read to its end ({error}); convert it again.") from None

    def _resampled(self) -> Iterator[NDArray[np.float32]]:
        if self.sample_rate == SAMPLE_RATE:
            yield from self._blocks()
            return
        import soxr

        stream = soxr.ResampleStream(self.sample_rate, SAMPLE_RATE, 1, dtype="float32")
        made = 0
        for block in self._blocks():
            out = stream.resample_chunk(block)
            made += len(out)
            yield out
        tail = stream.resample_chunk(np.zeros(0, np.float32), last=True)
        # A clip shorter than one output sample still is a sound.
        yield tail if made + len(tail) else np.zeros(1, np.float32)


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples of full scale 1.0 as 16-bit integers, rounded, and clipped at full scale."""
    return np.asarray((np.clip(samples, -1.0, 1.0) * 32767.0).round(), np.int16)


def split_frames(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] -> [ceil(n / 1920), 1920], zeros at the end."""
    return np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)


def level_dbfs(samples: NDArray[np.float32]) -> float:
    """RMS level in dB relative to full scale 1.0; -inf for digital silence."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return 20.0 * np.log10(rms) if rms > 0 else float("-inf")


def _check_rate(rate: Any, name: str | None = None) -> int:
    if isinstance(rate, bool) or int(rate) != rate or not 1000 <= rate <= 768000:
        where = "" if name is None else f"{name!r}: "
        raise ValueError(f"[audio] {where}expected a sample rate of 1000 to 768000 Hz, got {rate!r}.")
    return int(rate)


def _check_finite(samples: NDArray[np.float32], offset: int, name: str | None) -> None:
    good = np.isfinite(samples)
    if not good.all():
        first = np.argwhere(~good)[0]
        value = samples[tuple(first)]
        where = "" if name is None else f" of {name!r}"
        raise ValueError(f"[audio] sample {offset + int(first[0])}{where} is {value}; expected finite numbers.")


def _mono(block: NDArray[np.float32]) -> NDArray[np.float32]:
    return block if block.ndim == 1 else block.mean(axis=1, dtype=np.float32)


def _to_float(samples: Any) -> NDArray[np.float32]:
    """[n] or [n, channels] of integers or floats -> float32 with full scale 1.0."""
    array = np.asarray(samples)
    if array.ndim not in (1, 2):
        raise ValueError(f"[audio] expected samples [n] or [n, channels], got shape {list(array.shape)}.")
    if array.ndim == 2 and array.shape[1] > 32:
        raise ValueError(f"[audio] expected [n, channels], got shape {list(array.shape)}; transpose the array first.")
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype in (np.int16, np.int32):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    if array.dtype == np.uint8:
        return ((array.astype(np.float32) - 128.0) / 128.0).astype(np.float32)
    if array.size == 0:
        return np.zeros(array.shape, np.float32)
    raise ValueError(f"[audio] expected float, int16, int32 or uint8 samples, got {array.dtype}.")
