"""What a result says of where it was measured: processor, memory, commit, versions; and this process's memory."""

import datetime
import os
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import personaplex

ROOT = Path(__file__).resolve().parents[1]


def describe(device_name: str) -> dict[str, Any]:
    """This machine, with the device that computes."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": describe_processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "device_name": device_name,
    }


def describe_processor() -> str:
    try:
        if sys.platform == "darwin":
            return subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=True
            ).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    return platform.processor() or platform.machine()


def versions(info: dict[str, Any]) -> dict[str, str]:
    return {
        "personaplex": _version(),
        "mlx": str(info["mlx_version"]),
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """The commit of the source tree, with a + when files differ from it; None outside a repository."""
    try:
        name = _git("rev-parse", "--short=10", "HEAD").strip()
        changed = _git("status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+" if changed else "")


def today() -> str:
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def peak_bytes() -> int:
    """Most resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def resident_bytes() -> int:
    """Resident memory of this process now; 0 where the system does not say."""
    return _field("/proc/self/status", "VmRSS:")


def gpu_bytes() -> int:
    """Memory in use on NVIDIA's GPUs, by everybody; 0 where nvidia-smi does not say."""
    try:
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return sum(int(line) for line in said.split()) << 20
    except (OSError, ValueError, subprocess.CalledProcessError):
        return 0


def available_bytes() -> int:
    """Memory that can be had without swapping; a guess where the system does not say."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _field("/proc/meminfo", "MemAvailable:") or max(0, physical - peak_bytes())


def _version() -> str:
    """The package's version; that of pyproject.toml where it runs from a source tree, uninstalled."""
    if personaplex.__version__ != "0+unknown":
        return personaplex.__version__
    found = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    return found[1] if found else personaplex.__version__


def _field(path: str, name: str) -> int:
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout
