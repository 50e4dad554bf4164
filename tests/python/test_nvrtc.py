"""NVRTC as pip lays it down: which folder is found, and none where there is none."""

import sys

import pytest

from personaplex import nvrtc


@pytest.fixture(autouse=True)
def _no_other_packages(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)


def look_in(monkeypatch, site):
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])


def install(monkeypatch, site, package, version):
    folder = site / "nvidia" / package / "lib"
    folder.mkdir(parents=True)
    (folder / f"libnvrtc.so.{version}").touch()
    (folder / f"libnvrtc-builtins.so.{version}.9").touch()
    look_in(monkeypatch, site)
    return str(folder)


def test_without_the_package_there_is_no_folder(monkeypatch, tmp_path):
    assert nvrtc.folders() == ""
    (tmp_path / "nvidia" / "cublas" / "lib").mkdir(parents=True)
    look_in(monkeypatch, tmp_path)
    assert nvrtc.folders() == ""


@pytest.mark.parametrize(("package", "version"), [("cuda_nvrtc", 12), ("cu13", 13)])
def test_finds_the_folder_of_either_package(monkeypatch, tmp_path, package, version):
    folder = install(monkeypatch, tmp_path, package, version)
    assert nvrtc.folders() == folder


def test_names_the_newest_first_wherever_it_lies(monkeypatch, tmp_path):
    newest = install(monkeypatch, tmp_path / "a", "cu13", 13)
    older = install(monkeypatch, tmp_path / "b", "cuda_nvrtc", 12)
    assert nvrtc.folders() == f"{newest}:{older}"
