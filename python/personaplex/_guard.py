"""Refuses to import where the extension cannot work, with a sentence instead of a loader's error or a crash.

The extension is bound to the C++ ABI of one exact MLX and finds libmlx beside itself (`personaplex/../mlx/lib`).
`check()` therefore runs before it is loaded, and reads installation records and file names only.
"""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import logging
import platform
import sys
from pathlib import Path

# The distributions that install libmlx.so on Linux. All write the same file: the last one installed wins.
LINUX_LIBRARIES = ("mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")

_log = logging.getLogger("personaplex")


def check() -> None:
    """Raises ImportError, saying what to do next, when this system or its MLX is not the one this package needs."""
    _check_system()
    from personaplex._build_info import MLX_VERSION

    _check_versions(MLX_VERSION)
    _check_library(MLX_VERSION)


def _check_system() -> None:
    if sys.version_info < (3, 10):  # noqa: UP036 - a copied package was never checked by pip
        found = ".".join(str(part) for part in sys.version_info[:3])
        raise ImportError(f"[personaplex] needs Python 3.10 or later, this is {found}.")
    if sys.platform == "win32":
        raise ImportError(
            "[personaplex] does not run on Windows. Use Linux (WSL 2 counts) or a Mac with Apple silicon."
        )
    if sys.platform != "darwin":
        return
    if platform.machine() == "x86_64":
        raise ImportError(
            "[personaplex] needs Apple silicon, and this is an x86_64 Python. "
            "On an Apple silicon Mac install an arm64 Python; for Intel Macs MLX does not exist."
        )
    release = platform.mac_ver()[0]
    if release and int(release.split(".")[0]) < 14:
        raise ImportError(f"[personaplex] needs macOS 14 or later, this is {release}.")


def _check_versions(built: str) -> None:
    installed = _version("mlx")
    if installed is None:
        raise ImportError(f"[personaplex] mlx is not installed. Run: {_repair(built)}")
    if installed != built:
        raise ImportError(
            f"[personaplex] was built against mlx {built}, but mlx {installed} is installed. Run: {_repair(built)}"
        )
    for name in _libraries():
        if _version(name) != built:
            raise ImportError(
                f"[personaplex] was built against mlx {built}, but {name} {_version(name)} is installed. "
                f"Run: {_repair(built)}"
            )


def _check_library(built: str) -> None:
    extension = importlib.util.find_spec("personaplex._core")
    if extension is None or extension.origin is None:
        raise ImportError(
            "[personaplex] the extension personaplex._core is not built. Run `pip install .` in the source directory, "
            "and do not import from the source directory itself."
        )
    name = "libmlx.dylib" if sys.platform == "darwin" else "libmlx.so"
    site = Path(extension.origin).parent.parent
    library = site / "mlx" / "lib" / name
    if not library.exists():
        mlx = importlib.util.find_spec("mlx")
        for place in (mlx and mlx.submodule_search_locations) or []:
            if (Path(place) / "lib" / name).exists():
                raise ImportError(
                    f"[personaplex] is installed in {site}, but mlx in {Path(place).parent}; "
                    f"they must be side by side. Run: {_repair(built, '--ignore-installed')}"
                )
        raise ImportError(
            f"[personaplex] mlx {built} is installed without its library {name} "
            f"(on Linux it comes with mlx-cpu or mlx-cuda). Run: {_repair(built, '--force-reinstall')}"
        )
    recorded = _libraries()
    if len(recorded) > 1:
        owner = next((each for each in recorded if _recorded_size(each) == library.stat().st_size), "an unknown build")
        _log.warning(
            "%s are all installed, and each brings its own %s; the one in place is from %s. "
            "The last one installed wins: see docs/install.md.",
            ", ".join(recorded),
            name,
            owner,
        )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _libraries() -> list[str]:
    """The installed distributions that bring libmlx on Linux."""
    return [] if sys.platform == "darwin" else [name for name in LINUX_LIBRARIES if _version(name) is not None]


def _recorded_size(distribution: str) -> int | None:
    """Bytes of libmlx.so as this distribution installed it. Sizes tell the builds apart without reading 100s of MB."""
    record = importlib.metadata.distribution(distribution).read_text("RECORD") or ""
    for path, _digest, size in csv.reader(record.splitlines()):
        if path == "mlx/lib/libmlx.so":
            return int(size)
    return None


def _repair(version: str, *options: str) -> str:
    extra = "" if sys.platform == "darwin" else "[cpu]"
    return " ".join(["pip install", *options, f"'mlx{extra}=={version}'"])
