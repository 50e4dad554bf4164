"""Reads a voice saved by torch.save, without torch and without running what the file says.

A .pt file is a zip with one pickle (`data.pkl`) and one record per storage (`data/0`, ...). The pickle is first walked
opcode by opcode against a whitelist, then loaded by an Unpickler whose only callables rebuild a tensor or an empty
ordered dict. Nothing is written to disk, and no size in the file is believed before it is checked.
"""

import collections
import io
import os
import pickle
import pickletools
import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from personaplex.errors import WeightsError

MAX_FILE_BYTES = 256 << 20
MAX_PICKLE_BYTES = 64 << 10
MAX_RECORDS = 64
MAX_DIMS = 8

# What torch.save (pickle protocols 2 to 5) needs for a dict of tensors. No BUILD, INST, OBJ, NEWOBJ or EXT.
_OPCODES = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE SHORT_BINUNICODE "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BINPERSID "
    "BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE"
)

_STORAGES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),  # widened by _to_numpy
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


@dataclass(frozen=True)
class _StorageType:
    name: str


@dataclass(frozen=True)
class _Storage:
    kind: str
    data: NDArray[Any]


def read_voice(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The tensors of a .pt file, by name: floats as float32, integers as int64.

    Raises:
        WeightsError: not a zip of torch.save, truncated, compressed, too large, holds anything but tensors, or a
            tensor that reaches outside its storage. The message names what was found.
        OSError: the file cannot be opened.
    """
    where = f"[voice] {str(path)!r}"
    with Path(path).open("rb") as file:
        try:
            return _read(file)
        except _RefusedError as error:
            raise WeightsError(f"{where}: {error}") from None
        # Hostile bytes reach zipfile and pickle in ways that raise nearly anything; all of it means the same.
        except Exception as error:
            raise WeightsError(f"{where} is damaged: {type(error).__name__}: {error}") from None


class _RefusedError(Exception):
    """Why a file is not accepted."""


def _read(file: BinaryIO) -> dict[str, NDArray[Any]]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > MAX_FILE_BYTES:
        raise _RefusedError(f"it has {size} bytes; expected a voice of at most {MAX_FILE_BYTES}.")
    if not zipfile.is_zipfile(file):
        raise _RefusedError("not a zip archive; expected a file of torch.save (PyTorch 1.6 or later).")
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        records = _records(archive, size)
        if records.get("byteorder", b"little").strip() != b"little":
            raise _RefusedError("its numbers are big-endian; save it again on a little-endian machine.")
        if "data.pkl" not in records:
            raise _RefusedError("it has no data.pkl; expected a file of torch.save.")
        loaded = _unpickle(records)
    if not isinstance(loaded, dict) or not loaded:
        raise _RefusedError(f"expected a dict of tensors, found {type(loaded).__name__}.")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise _RefusedError(f"expected tensors by name, found {name!r}: {type(value).__name__}.")
    return dict(loaded)


def _records(archive: zipfile.ZipFile, file_size: int) -> dict[str, bytes]:
    """Every record without the archive's root folder, read whole; only stored, plain, distinct names."""
    infos = archive.infolist()
    if len(infos) > MAX_RECORDS:
        raise _RefusedError(f"it has {len(infos)} records; expected at most {MAX_RECORDS}.")
    if sum(info.file_size for info in infos) > file_size:
        raise _RefusedError("its records claim more bytes than the file has.")
    records: dict[str, bytes] = {}
    for info in infos:
        name = info.filename
        root, _, rest = name.partition("/")
        if not root or not rest or "\\" in name or name.startswith("/") or ".." in name.split("/"):
            raise _RefusedError(f"it has a record with the unexpected name {name!r}.")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise _RefusedError(f"its record {name!r} is compressed or encrypted; torch.save stores records plainly.")
        if rest in records:
            raise _RefusedError(f"it has two records named {rest!r}.")
        records[rest] = archive.read(info)
    return records


def _unpickle(records: dict[str, bytes]) -> Any:
    data = records["data.pkl"]
    if len(data) > MAX_PICKLE_BYTES:
        raise _RefusedError(f"its pickle has {len(data)} bytes; expected at most {MAX_PICKLE_BYTES}.")
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES.split():
            raise _RefusedError(f"its pickle uses {opcode.name}; only tensors are read.")
        # The unpickler sizes its memo by this number.
        if opcode.name == "LONG_BINPUT" and (argument or 0) > len(data):
            raise _RefusedError(f"its pickle puts to memo {argument}.")
    return _VoiceUnpickler(records).load()


class _VoiceUnpickler(pickle.Unpickler):
    def __init__(self, records: dict[str, bytes]) -> None:
        super().__init__(io.BytesIO(records["data.pkl"]))
        self._records = records

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):  # the empty table of backward hooks
            return collections.OrderedDict
        if module == "torch" and name in _STORAGES:
            return _StorageType(name)
        raise _RefusedError(f"its pickle names {module}.{name}; only tensors are read.")

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            raise _RefusedError("its pickle has an unknown kind of persistent object; expected storages.")
        _, kind, key, _, count = pid
        dtype = _STORAGES[kind.name]
        record = self._records.get(f"data/{key}") if isinstance(key, str) else None
        if record is None:
            raise _RefusedError(f"its storage {key!r} has no record.")
        if not _is_size(count) or count * dtype.itemsize != len(record):
            raise _RefusedError(
                f"its storage {key!r} should have {count} x {dtype.itemsize} bytes, found {len(record)}."
            )
        return _Storage(kind.name, np.frombuffer(record, dtype))


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> NDArray[Any]:
    if not isinstance(storage, _Storage):
        raise _RefusedError("its pickle builds a tensor from something else than a storage.")
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= MAX_DIMS):
        raise _RefusedError(f"a tensor has shape {shape!r} and strides {strides!r}.")
    if not all(map(_is_size, (offset, *shape, *strides))) or 0 in shape:
        raise _RefusedError(f"a tensor has offset {offset!r}, shape {shape!r} and strides {strides!r}.")
    available = storage.data.size
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # The second test refuses small storages stretched by stride 0.
    if last >= available or prod(shape) > available:
        raise _RefusedError(f"a tensor of shape {list(shape)} reaches outside its storage of {available} numbers.")
    step = storage.data.itemsize
    view = np.lib.stride_tricks.as_strided(storage.data[offset:], shape, [s * step for s in strides], writeable=False)
    return _to_numpy(storage.kind, view)


def _to_numpy(kind: str, view: NDArray[Any]) -> NDArray[Any]:
    if kind == "BFloat16Storage":
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view.astype(np.int64 if view.dtype.kind == "i" else np.float32)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 40
