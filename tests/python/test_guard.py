"""The import guard: every system and every MLX that it must refuse, and a real import beside a wrong MLX."""

import importlib.metadata
import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from personaplex._build_info import MLX_VERSION

from personaplex import _guard


def pretend(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str = "arm64", macos: str = "14.5", python=(3, 12, 1)
):
    monkeypatch.setattr(_guard, "sys", SimpleNamespace(platform=system, version_info=python))
    monkeypatch.setattr(
        _guard, "platform", SimpleNamespace(machine=lambda: machine, mac_ver=lambda: (macos, ("", "", ""), ""))
    )


def pretend_installed(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]):
    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(_guard.importlib.metadata, "version", version)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty site-packages with the extension in it; `find_spec("mlx")` finds `elsewhere/mlx` once that exists."""

    def find_spec(name: str):
        if name == "mlx":
            place = tmp_path / "elsewhere" / "mlx"
            return SimpleNamespace(submodule_search_locations=[str(place)]) if place.exists() else None
        return SimpleNamespace(origin=str(tmp_path / "site" / "personaplex" / "_core.so"))

    monkeypatch.setattr(
        _guard, "importlib", SimpleNamespace(metadata=importlib.metadata, util=SimpleNamespace(find_spec=find_spec))
    )
    return tmp_path / "site"


def put_library(site: Path, name: str = "libmlx.so", size: int = 3):
    (site / "mlx" / "lib").mkdir(parents=True)
    (site / "mlx" / "lib" / name).write_bytes(b"x" * size)


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ({"system": "linux", "python": (3, 9, 18)}, r"needs Python 3\.10 or later, this is 3\.9\.18"),
        ({"system": "win32"}, "does not run on Windows"),
        ({"system": "darwin", "machine": "x86_64"}, "needs Apple silicon"),
        ({"system": "darwin", "macos": "13.6.1"}, r"needs macOS 14 or later, this is 13\.6\.1"),
    ],
)
def test_refuses_the_system(monkeypatch, system, message):
    pretend(monkeypatch, **system)
    with pytest.raises(ImportError, match=message):
        _guard.check()


@pytest.mark.parametrize(
    "system",
    [{"system": "linux", "machine": "x86_64"}, {"system": "linux", "machine": "aarch64"}, {"system": "darwin"}],
)
def test_accepts_the_system(monkeypatch, system):
    pretend(monkeypatch, **system)
    _guard._check_system()


@pytest.mark.parametrize(
    ("system", "installed", "message"),
    [
        ("linux", {}, r"mlx is not installed\. Run: pip install 'mlx\[cpu\]==0\.32\.4'"),
        (
            "linux",
            {"mlx": "0.31.0"},
            r"built against mlx 0\.32\.4, but mlx 0\.31\.0 .* pip install 'mlx\[cpu\]==0\.32\.4'",
        ),
        ("darwin", {"mlx": "0.31.0"}, r"built against mlx 0\.32\.4, but mlx 0\.31\.0 .* pip install 'mlx==0\.32\.4'"),
        ("linux", {"mlx": "0.32.4", "mlx-cpu": "0.31.0"}, r"but mlx-cpu 0\.31\.0 is installed"),
        (
            "linux",
            {"mlx": "0.32.4", "mlx-cpu": "0.32.4", "mlx-cuda-13": "0.33.0"},
            r"but mlx-cuda-13 0\.33\.0 is installed",
        ),
    ],
)
def test_refuses_another_mlx(monkeypatch, system, installed, message):
    pretend(monkeypatch, system)
    pretend_installed(monkeypatch, installed)
    with pytest.raises(ImportError, match=message):
        _guard._check_versions("0.32.4")


@pytest.mark.parametrize(
    "installed", [{"mlx-cpu": "0.32.4"}, {"mlx-cuda-12": "0.32.4"}, {"mlx-cpu": "0.32.4", "mlx-cuda-13": "0.32.4"}]
)
def test_accepts_the_mlx_it_was_built_against(monkeypatch, installed):
    pretend(monkeypatch, "linux")
    pretend_installed(monkeypatch, {"mlx": "0.32.4", **installed})
    _guard._check_versions("0.32.4")


def test_refuses_mlx_without_a_library(monkeypatch, site):
    pretend(monkeypatch, "linux")
    with pytest.raises(
        ImportError, match=r"without its library libmlx\.so .* pip install --force-reinstall 'mlx\[cpu\]==1\.2\.3'"
    ):
        _guard._check_library("1.2.3")


def test_refuses_mlx_in_another_directory(monkeypatch, site):
    pretend(monkeypatch, "linux")
    put_library(site.parent / "elsewhere")
    with pytest.raises(ImportError, match="must be side by side"):
        _guard._check_library("1.2.3")


def test_refuses_an_unbuilt_source_tree(monkeypatch, site):
    pretend(monkeypatch, "linux")
    monkeypatch.setattr(_guard.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="is not built"):
        _guard._check_library("1.2.3")


@pytest.mark.parametrize(("system", "name"), [("linux", "libmlx.so"), ("darwin", "libmlx.dylib")])
def test_accepts_a_library_beside_the_package(monkeypatch, site, caplog, system, name):
    pretend(monkeypatch, system)
    pretend_installed(monkeypatch, {"mlx": "1.2.3", "mlx-cpu": "1.2.3"})
    put_library(site, name)
    with caplog.at_level(logging.WARNING, logger="personaplex"):
        _guard._check_library("1.2.3")
    assert not caplog.records


@pytest.mark.parametrize(("size", "owner"), [(3, "mlx-cpu"), (5, "mlx-cuda-13"), (7, "an unknown build")])
def test_says_which_library_it_found(monkeypatch, site, caplog, tmp_path, size, owner):
    pretend(monkeypatch, "linux")
    put_library(site, size=size)
    for name, recorded in (("mlx_cpu", 3), ("mlx_cuda_13", 5)):
        info = site / f"{name}-1.2.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.2.3\n")
        (info / "RECORD").write_text(
            f"{name}/__init__.py,sha256=x,1\nmlx/lib/libmlx.so,sha256=y,{recorded}\n{info.name}/RECORD,,\n"
        )
    monkeypatch.setattr(sys, "path", [str(site)])
    with caplog.at_level(logging.WARNING, logger="personaplex"):
        _guard._check_library("1.2.3")
    assert f"the one in place is from {owner}" in caplog.text
    assert "mlx-cpu, mlx-cuda-13 are all installed" in caplog.text


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_import_beside_an_older_mlx_is_an_error_and_no_crash(tmp_path):
    info = tmp_path / "mlx-0.31.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx\nVersion: 0.31.0\n")
    done = run_python(
        "import personaplex", PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    )
    assert done.returncode == 1, done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: [personaplex] ")
    assert f"mlx {MLX_VERSION}" in message
    assert "mlx 0.31.0" in message
    assert "Run: pip install 'mlx" in message


def test_this_installation_passes_without_loading_mlx():
    done = run_python("import sys\nfrom personaplex._guard import check\ncheck()\nprint('ok')")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok\n"
