"""Writes .pt files as torch.save does, and wrong ones, without torch: the zip and the pickle by hand."""

import io
import struct
import zipfile
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

STORAGE = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage", "u2": "BFloat16Storage"}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def integers(values: Any) -> bytes:
    return b"(" + b"".join(integer(int(v)) for v in values) + b"t"


def tensor(
    kind: str, key: str, count: int, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0
) -> bytes:
    """The opcodes of one tensor over storage `key` of `count` numbers."""
    if strides is None:
        strides = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + integer(count)
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = b"(" + storage + b"tQ" + integer(offset) + integers(shape) + integers(strides) + b"\x89" + hooks + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def pickle_of(entries: Mapping[str, bytes]) -> bytes:
    """A pickle of a dict: names to the opcodes of their values."""
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u."


def archive(records: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in records.items():
            file.writestr(name, data)
    return buffer.getvalue()


def save(tensors: Mapping[str, np.ndarray], **records: bytes) -> bytes:
    """What torch.save(tensors) would write; arrays of uint16 are bfloat16 bits."""
    entries: dict[str, bytes] = {}
    stored = {"voice/byteorder": b"little", "voice/version": b"3\n"}
    for number, (name, array) in enumerate(tensors.items()):
        entries[name] = tensor(STORAGE[array.dtype.str[1:]], str(number), array.size, array.shape)
        stored[f"voice/data/{number}"] = array.astype(array.dtype.newbyteorder("<")).tobytes()
    extra = {f"voice/{name}": data for name, data in records.items()}
    return archive({"voice/data.pkl": pickle_of(entries), **stored, **extra})


def voice(count: int = 5, dim: int = 8, dtype: str = "<f4", seed: int = 0) -> dict[str, np.ndarray]:
    """The tensors of a voice that fits the fake model."""
    noise = np.random.default_rng(seed)
    embeddings = noise.standard_normal((count, 1, 1, dim)).astype(np.float32)
    stored = (embeddings.view(np.uint32) >> 16).astype("<u2") if dtype == "bf16" else embeddings.astype(dtype)
    return {"embeddings": stored, "cache": noise.integers(0, 64, (1, 17, 4)).astype("<i8")}
