"""Finds clang, and a place for what is compiled."""

import functools
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from .errors import ToolError

ROOT = Path(__file__).resolve().parents[1]
SHIM = ROOT / "shim"
RUNTIME = ROOT / "runtime"

# _Float16 without the instruction set for it came with 15, arithmetic on __bf16 with 17.
_OLDEST = 17
_NAMES = [f"clang++-{version}" for version in (19, 23, 22, 21, 20, 18, 17)] + ["clang++"]


@functools.cache
def clang() -> str:
    """The compiler's path: $METALSIM_CLANG or the first good clang++. ToolError says what to install."""
    chosen = os.environ.get("METALSIM_CLANG")
    for name in [chosen] if chosen else _NAMES:
        path = shutil.which(name)
        if not path:
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"clang version (\d+)", said)
        if chosen or (version and int(version[1]) >= _OLDEST):
            return path
    raise ToolError(
        f"[metalsim] {'METALSIM_CLANG=' + chosen if chosen else f'clang++ {_OLDEST} or newer'} was not found: "
        "install one (Debian and Ubuntu: apt-get install clang-19 llvm-19) or set METALSIM_CLANG to a clang++."
    )


def why_not() -> str:
    """Why nothing can run here, or an empty string."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "metalsim runs on Linux on x86-64 only"
    try:
        clang()
    except ToolError as e:
        return str(e)
    return ""


def cache(tool: str = "metalsim") -> Path:
    """The directory of what a tool compiles: $METALSIM_CACHE, or one for this user among the temporary files."""
    variable = f"{tool.upper()}_CACHE"
    chosen = os.environ.get(variable)
    path = Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"{tool}-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise ToolError(f"[{tool}] {path} belongs to somebody else: set {variable} to a directory of your own.")
    return path


def run(command: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a tool with `text` on its standard input."""
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)
