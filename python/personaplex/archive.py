"""Unpacks voices.tgz into the cache: only regular files voices/*.pt and voices/*.safetensors, nothing outside."""

import gzip
import logging
import re
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO, cast

from personaplex.digest import sha256_file
from personaplex.errors import WeightsError

logger = logging.getLogger(__name__)

MAX_TOTAL_BYTES = 512 << 20  # after decompression; the real archive has about 10 MB
MAX_MEMBER_BYTES = 64 << 20
MAX_MEMBERS = 512
_VOICE = re.compile(r"(?:\./)?voices/([A-Za-z0-9_-][A-Za-z0-9_.-]*\.(?:pt|safetensors))")


def unpack_voices(archive: Path, cache: Path) -> Path:
    """The folder in `cache` with the voices of `archive`; unpacked once per content.

    Raises:
        WeightsError: damaged, too large, or with a member that is a link, a device or points outside.
    """
    target = cache / "voices" / sha256_file(archive)[:32]
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
    try:
        _unpack(archive, scratch)
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():  # unless another process was faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


class _Limited:
    """Reads a stream up to a number of bytes: tarfile itself reads as much as a header tells it to."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._left:
            raise _RefusedError(f"it unpacks to more than {MAX_TOTAL_BYTES} bytes")
        data = self._file.read(size)
        self._left -= len(data)
        return data


class _RefusedError(Exception):
    """Why an archive is not accepted."""


def _unpack(archive: Path, scratch: Path) -> None:
    try:
        with gzip.open(archive) as raw:
            # "r|" only reads forward, so every byte passes the limit.
            limited = cast(IO[bytes], _Limited(cast(BinaryIO, raw), MAX_TOTAL_BYTES))
            with tarfile.open(fileobj=limited, mode="r|") as tar:
                _unpack_members(tar, archive.name, scratch)
            while limited.read(1 << 16):  # to the end, where gzip keeps the checksum
                pass
    except _RefusedError as error:
        raise WeightsError(f"[voices] {str(archive)!r} was refused: {error}; fetch it again.") from None
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError, OverflowError) as error:
        raise WeightsError(f"[voices] {str(archive)!r} is damaged ({error}); fetch it again.") from None


def _unpack_members(tar: tarfile.TarFile, archive: str, scratch: Path) -> None:
    for number, member in enumerate(tar):
        if number >= MAX_MEMBERS:
            raise _RefusedError(f"it has more than {MAX_MEMBERS} members")
        _check(member)
        match = _VOICE.fullmatch(member.name)
        if member.isfile() and match:
            _copy(tar, member, scratch / match.group(1))
        elif member.isfile():
            logger.info("[voices] %s: %r is no voice and was left out.", archive, member.name)


def _check(member: tarfile.TarInfo) -> None:
    if not (member.isfile() or member.isdir()):
        raise _RefusedError(f"{member.name!r} is a link or a device, expected regular files")
    if member.name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", member.name) or ":" in member.name:
        raise _RefusedError(f"{member.name!r} points outside")
    if member.size > MAX_MEMBER_BYTES:
        raise _RefusedError(f"{member.name!r} has {member.size} bytes, expected at most {MAX_MEMBER_BYTES}")


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None  # a regular file
    data = source.read()
    if len(data) != member.size:
        raise _RefusedError(f"{member.name!r} ends after {len(data)} of {member.size} bytes")
    target.write_bytes(data)
