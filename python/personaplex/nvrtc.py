"""Finds NVRTC, CUDA's compiler, where pip has put it. The extra `cuda` of this package brings it."""

import importlib.util
from pathlib import Path


def folder() -> str:
    """The folder with libnvrtc of an installed nvidia-cuda-nvrtc or nvidia-cuda-nvrtc-cu12, the newest where there are
    several; "" where there is none. It is not opened."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return ""
    roots = [] if spec is None else spec.submodule_search_locations or []
    found = [path for root in roots for path in Path(root).glob("*/lib/libnvrtc.so.*")]
    return str(max(found, key=lambda path: _version(path)).parent) if found else ""


def _version(library: Path) -> tuple[int, ...]:
    """(12,) of libnvrtc.so.12; of libnvrtc.alt.so.12 too."""
    return tuple(int(part) for part in library.name.partition(".so.")[2].split(".") if part.isdecimal())
