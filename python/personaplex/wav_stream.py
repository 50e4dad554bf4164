"""Writing audio while it is being generated: a WAV file valid after every frame, a WAV or raw PCM pipe."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from personaplex.audio import SAMPLE_RATE, to_int16

_UNKNOWN = 0xFFFFFFFF  # a WAV length that players read as "until the stream ends"
_HEADER_BYTES = 44


def wav_header(data_bytes: int | None, channels: int = 1, sample_rate: int = SAMPLE_RATE) -> bytes:
    """44 bytes for 16-bit PCM; `data_bytes` None, or too long for WAV's 32 bits, means unknown length."""
    data = _UNKNOWN if data_bytes is None or data_bytes + _HEADER_BYTES > _UNKNOWN else data_bytes
    riff = _UNKNOWN if data == _UNKNOWN else data + _HEADER_BYTES - 8
    frame_bytes = 2 * channels
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, channels, sample_rate),
        *(sample_rate * frame_bytes, frame_bytes, 16, b"data", data),
    )


def to_pcm16(samples: NDArray[np.float32]) -> bytes:
    """Samples [n] or [n, channels] as little-endian 16-bit PCM, clipped at full scale."""
    return bytes(to_int16(samples).astype("<i2").tobytes())


def write_all(file: BinaryIO, data: bytes) -> None:
    """Writes everything: standard output under PYTHONUNBUFFERED is a raw file, which may take only a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


class WavStream:
    """A sink for frames. A path always holds a valid file; a pipe gets a header of unknown length, or none.

    Args:
        target: a path, or a binary stream such as sys.stdout.buffer (left open by close()).
        kind: "wav" or "raw" (16-bit little-endian PCM without a header).
        channels: 1, or 2 for user left and agent right.
    """

    def __init__(self, target: str | os.PathLike[str] | BinaryIO, kind: str = "wav", channels: int = 1) -> None:
        if kind not in ("wav", "raw"):
            raise ValueError(f"[WavStream] expected format wav or raw, got {kind!r}.")
        self._channels = channels
        self._bytes = 0
        self._owned = isinstance(target, (str, os.PathLike))
        self._file = _open(target)
        self._patched = self._owned and kind == "wav"
        if kind == "wav":
            write_all(self._file, wav_header(0 if self._owned else None, channels))
            self._file.flush()

    def write(self, samples: NDArray[np.float32]) -> None:
        """Appends samples [n] or [n, channels] and makes them visible to readers."""
        if (samples.shape[1] if samples.ndim == 2 else 1) != self._channels:
            raise ValueError(f"[WavStream.write] expected {self._channels} channels, got shape {list(samples.shape)}.")
        data = to_pcm16(samples)
        write_all(self._file, data)
        self._bytes += len(data)
        if self._patched:
            self._file.seek(0)
            self._file.write(wav_header(self._bytes, self._channels))
            self._file.seek(0, os.SEEK_END)
        self._file.flush()

    def close(self) -> None:
        if self._owned:
            self._file.close()

    def __enter__(self) -> "WavStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(target: str | os.PathLike[str] | BinaryIO) -> BinaryIO:
    return Path(target).open("wb") if isinstance(target, (str, os.PathLike)) else target
