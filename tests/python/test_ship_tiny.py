"""tools/ship_tiny.py takes nothing that may not ship, and leaves nothing of what shipped before."""

import shutil
import sys
from pathlib import Path

import checkpoints
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import ship_tiny

from personaplex import VOICES, shipped


def listing(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def target(tmp_path, monkeypatch):
    """Stands in for the package's folder; holds an older model."""
    folder = tmp_path / "package" / "tiny"
    (folder / "voices").mkdir(parents=True)
    for name in ("NOTICE", "old.safetensors", "voices/OLD.safetensors"):
        (folder / name).write_text(name)
    monkeypatch.setattr(ship_tiny, "FOLDER", folder)
    return folder


def ship(monkeypatch, source):
    monkeypatch.setattr(sys, "argv", ["ship_tiny.py", str(source)])
    ship_tiny.main()


def test_replaces_what_was_there(tmp_path, monkeypatch, target):
    source = tmp_path / "export"
    shutil.copytree(shipped.folder(), source)
    (source / "log.txt").write_text("not for anyone else")
    ship(monkeypatch, source)
    assert listing(target) == listing(source) - {"log.txt"}
    assert (target / "NOTICE").read_text() == "NOTICE"
    for name in listing(target) - {"NOTICE"}:
        assert (target / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize(("fault", "message"), [("voices", "expected the voices"), ("bits", "4 or 8"), ("size", "MB")])
def test_refuses_and_changes_nothing(tmp_path, monkeypatch, target, fault, message):
    source = checkpoints.mlx(tmp_path / "export")  # one voice, and embeddings of 16 bits
    if fault == "bits":
        voice = (source / "voices" / "NATM0.safetensors").read_bytes()
        for name in VOICES:
            (source / "voices" / f"{name}.safetensors").write_bytes(voice)
    if fault == "size":
        (source / "more.safetensors").write_bytes(bytes(ship_tiny.MAX_BYTES))
    before = listing(target)
    with pytest.raises(SystemExit, match=message):
        ship(monkeypatch, source)
    assert listing(target) == before
