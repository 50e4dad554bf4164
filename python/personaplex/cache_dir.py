"""Where the package keeps what it can make again: prompt snapshots, unpacked voices, file hashes."""

import os
import sys
from pathlib import Path


def cache_dir(override: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder (not created): `override`, else $PERSONAPLEX_CACHE, else the platform's cache folder."""
    if override is not None:
        return Path(override).expanduser()
    if chosen := os.environ.get("PERSONAPLEX_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "personaplex"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "personaplex"
