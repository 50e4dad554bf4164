"""Finds NVRTC, CUDA's compiler, where pip has put it. The extra `cuda` of this package brings it."""

import importlib.util
from pathlib import Path


def folders() -> str:
    """The folders with libnvrtc of all installed nvidia-cuda-nvrtc and nvidia-cuda-nvrtc-cu12, the newest first, with
    colons in between: the first one that the driver is new enough for is taken. "" where there is none."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return ""
    roots = [] if spec is None else spec.submodule_search_locations or []
    found = [path for root in roots for path in Path(root).glob("*/lib/libnvrtc.so.*")]
    newest_first = sorted(found, key=_version, reverse=True)
    return ":".join(dict.fromkeys(str(path.parent) for path in newest_first))


def _version(library: Path) -> tuple[int, ...]:
    """(12,) of libnvrtc.so.12; of libnvrtc.alt.so.12 too."""
    return tuple(int(part) for part in library.name.partition(".so.")[2].split(".") if part.isdecimal())
