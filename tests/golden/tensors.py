# tests/golden/tensors.py: the safetensors format in numpy alone, independent of the core that it helps to test.
from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

# bfloat16 has no numpy type: it travels as the upper half of a float32.
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U32": "<u4", "U8": "<u1", "BOOL": "?"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}


def read(path: Path | str) -> dict[str, np.ndarray]:
    """Every tensor of a file; BF16 and F16 come as float32."""
    raw = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        value = np.frombuffer(raw[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"]).copy()
        if entry["dtype"] == "BF16":
            value = (value.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = value.astype(np.float32) if entry["dtype"] == "F16" else value
    return tensors


def to_bfloat16(value: np.ndarray) -> np.ndarray:
    """Float32 rounded to the nearest bfloat16 (ties to even), as the 16 bits that a file stores."""
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def as_bfloat16(value: np.ndarray) -> np.ndarray:
    """Float32 rounded to bfloat16, still float32."""
    return (to_bfloat16(value).astype(np.uint32) << 16).view(np.float32).reshape(value.shape)


def write(path: Path | str, tensors: dict[str, np.ndarray], bfloat16: bool = False) -> None:
    """Writes a file, names sorted; `bfloat16` rounds every float tensor."""
    header: dict[str, object] = {}
    blobs: list[bytes] = []
    offset = 0
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        kind = NAMES[value.dtype]
        if bfloat16 and kind == "F32":
            kind, value = "BF16", to_bfloat16(value)
        blobs.append(value.tobytes())
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [offset, offset + len(blobs[-1])]}
        offset += len(blobs[-1])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data starts on a multiple of 8
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
