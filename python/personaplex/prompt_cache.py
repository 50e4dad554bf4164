"""Keeps the state after a prompt: a few in memory, more on disk, so that the same voice and text start at once.

The state depends on nothing but the weights, how they are computed with, the voice and the text; the key holds all of
it, and a file whose key differs is never used.
"""

import json
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personaplex.digest import sha256_file, sha256_text
from personaplex.errors import PersonaplexError
from personaplex.hub import ModelSource
from personaplex.version import __version__

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1  # of the meaning of a snapshot; raise it when the state's layout changes
MEMORY_ENTRIES = 4
MAX_DISK_BYTES = 2 << 30
DISK_WORTH_SECONDS = 1.0  # "auto" writes a file only when the prompt took longer than this
# Parts of the core's info that change the numbers of a state.
COMPUTED_WITH = (
    *("engine", "device", "device_name", "instruction_set", "dtype", "kv_dtype"),
    *("bits", "group_size", "kept_16bit", "compiled"),
)
MODES = ("auto", "memory", "disk", "off")


def weights_digest(source: ModelSource, info: Mapping[str, Any], cache: Path) -> str:
    """SHA-256 over the checkpoint's weight files; for a random model, over its name and seed.

    Files of several gigabytes are hashed once: the result is remembered by path, size and time. Blobs of the hub's
    cache carry their SHA-256 as a file name.
    """
    if source.directory is None:
        return sha256_text(f"{source.name} seed {info.get('weights_seed', 0)}")
    memory = _HashMemory(cache / "hashes.json")
    files = [*sorted(source.directory.glob("*.safetensors")), source.directory / "config.json"]
    lines = [f"{path.name} {memory.sha256(path)}" for path in files if path.is_file()]
    memory.save()
    return sha256_text("\n".join(lines))


def cache_key(weights: str, info: Mapping[str, Any], config: Mapping[str, Any], voice: str, tokens: list[int]) -> str:
    """All that the state after a prompt depends on, as canonical JSON."""
    computed_with = {name: info.get(name) for name in COMPUTED_WITH}
    key = {
        "format": FORMAT_VERSION,
        "personaplex": __version__,
        "mlx": info.get("mlx_version"),
        "weights": weights,
        "context": config["context"],
        **computed_with,
        "voice": voice,
        "text": tokens,
    }
    return json.dumps(key, sort_keys=True, separators=(",", ":"), default=str)


class PromptCache:
    """Snapshots by key.

    Args:
        core: the core model, for load_snapshot.
        mode: "auto" (memory, and disk for slow prompts), "memory", "disk" (always both), "off".
        directory: where snapshot files go.
    """

    def __init__(self, core: Any, mode: str, directory: Path) -> None:
        if mode not in MODES:
            raise ValueError(f"[load] expected prompt_cache {', '.join(MODES)}, got {mode!r}.")
        self._core = core
        self.mode = mode
        self._directory = directory
        self._memory: OrderedDict[str, Any] = OrderedDict()

    @property
    def uses_disk(self) -> bool:
        return self.mode in ("auto", "disk")

    def get(self, key: str) -> Any | None:
        """The snapshot, or None. A broken file counts as absent and will be written again."""
        if self.mode == "off":
            return None
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        path = self._path(key)
        if not self.uses_disk or not path.is_file():
            return None
        try:
            snapshot = self._core.load_snapshot(str(path), key)
            os.utime(path)  # the oldest files go first
        except (PersonaplexError, OSError) as error:
            logger.warning("[prompt cache] %s is not used and will be written again: %s", path.name, error)
            return None
        self._remember(key, snapshot)
        return snapshot

    def put(self, key: str, snapshot: Any, seconds: float) -> None:
        """Keeps a snapshot whose prompt took `seconds`. A disk that cannot be written is no error."""
        if self.mode == "off":
            return
        self._remember(key, snapshot)
        if self.mode == "disk" or (self.mode == "auto" and seconds > DISK_WORTH_SECONDS):
            try:
                self._write(key, snapshot)
            except (PersonaplexError, OSError) as error:
                logger.warning("[prompt cache] cannot write to %s: %s", self._directory, error)

    def clear(self) -> None:
        """Forgets the snapshots in memory."""
        self._memory.clear()

    def _remember(self, key: str, snapshot: Any) -> None:
        self._memory[key] = snapshot
        self._memory.move_to_end(key)
        while len(self._memory) > MEMORY_ENTRIES:
            self._memory.popitem(last=False)

    def _path(self, key: str) -> Path:
        return self._directory / f"{sha256_text(key)}.safetensors"

    def _write(self, key: str, snapshot: Any) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".write-", dir=self._directory) as scratch:
            draft = Path(scratch) / "snapshot.safetensors"
            snapshot.save(str(draft), key)
            os.replace(draft, self._path(key))
        self._shrink()

    def _shrink(self) -> None:
        files = sorted(self._directory.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > MAX_DISK_BYTES:
                path.unlink(missing_ok=True)


class _HashMemory:
    """SHA-256 of files, remembered in a small JSON by (real path, size, mtime)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        try:
            known = json.loads(path.read_text("utf-8"))
            self._known: dict[str, str] = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            self._known = {}

    def sha256(self, path: Path) -> str:
        real = path.resolve()
        if len(real.name) == 64 and all(c in "0123456789abcdef" for c in real.name):
            return real.name
        stat = real.stat()
        label = f"{real}|{stat.st_size}|{stat.st_mtime_ns}"
        if label not in self._known:
            # Older states of the same file are of no more use.
            self._known = {k: v for k, v in self._known.items() if not k.startswith(f"{real}|")}
            self._known[label] = sha256_file(real)
            self._changed = True
        return self._known[label]

    def save(self) -> None:
        if not self._changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft = self._path.with_suffix(f".{os.getpid()}.tmp")
            draft.write_text(json.dumps(self._known, indent=1), "utf-8")
            os.replace(draft, self._path)
        except OSError as error:
            logger.warning("[prompt cache] cannot write %s: %s", self._path, error)
