"""Compiled frames: the same tokens as plain ones, nothing left behind, and plain frames where there is no compiler."""

import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import personaplex

USER = np.random.default_rng(4).uniform(-0.2, 0.2, 4 * 1920).astype(np.float32), 24000
OPTIONS = {"voice": "none", "system_prompt": "", "max_steps": 2, "seed": 3}


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty $TMPDIR."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def plain_model():
    """The graph engine, not compiled."""
    model = personaplex.load("random:tiny", device="cpu", engine="graph")
    yield model
    model.unload()


@pytest.mark.slow  # MLX runs g++ for half a minute
@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles with g++ on the CPU")
def test_compiled_tokens_are_the_plain_ones(plain_model, temporary):
    plain = plain_model.respond(USER, **OPTIONS)
    model = personaplex.load("random:tiny", device="cpu", engine="graph", compile=True, prompt_cache="off")
    try:
        assert (model.info["compiled"], model.info["compile_note"]) == (True, "")
        compiled = model.respond(USER, **OPTIONS)
    finally:
        model.unload()
    assert np.array_equal(compiled.tokens, plain.tokens)
    assert np.abs(compiled.audio.samples - plain.audio.samples).max() < 1e-5
    assert compiled.metadata["model"]["compiled"] is True
    assert plain.metadata["model"]["compiled"] is False
    assert os.environ["TMPDIR"] == str(temporary)
    assert os.listdir(temporary) == []
    # The core changes the environment of the process, which Python's copy does not show.
    shown = subprocess.run(["printenv", "TMPDIR"], env=None, capture_output=True, text=True, check=True).stdout
    assert shown == f"{temporary}\n"


def test_without_a_compiler_frames_are_plain_and_that_is_said(plain_model, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.WARNING, logger="personaplex"):
        model = personaplex.load("random:tiny", device="cpu", engine="graph", compile=True)
    try:
        info = model.info
        answer = model.respond(USER, **OPTIONS)
    finally:
        model.unload()
    assert info["compiled"] is False
    assert "g++" in info["compile_note"]
    assert [record.getMessage() for record in caplog.records] == [f"[load] not compiled: {info['compile_note']}"]
    assert answer.metadata["model"]["compile_note"] == info["compile_note"]
    assert np.array_equal(answer.tokens, plain_model.respond(USER, **OPTIONS).tokens)


def test_the_command_says_it_on_standard_error(tmp_path):
    (tmp_path / "bin").mkdir()
    personaplex.Audio(USER[0]).write(tmp_path / "question.wav")
    command = [sys.executable, "-m", "personaplex", "respond", "--model", "random:tiny", "--engine", "graph"]
    done = subprocess.run(
        [*command, "--device", "cpu", "--compile", "--input", "question.wav", "--max-steps", "0", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.startswith("personaplex: [load] not compiled: MLX needs g++")
    assert done.stderr.count("\n") == 1
    assert '"compiled": false, "compile_note": "MLX needs g++' in done.stdout


def test_the_fused_engine_says_that_it_has_nothing_to_compile(caplog):
    with caplog.at_level(logging.WARNING, logger="personaplex"):
        model = personaplex.load("random:tiny", device="cpu", engine="fused", compile=True)
    model.unload()
    assert model.info["compiled"] is False
    assert [record.getMessage() for record in caplog.records] == [f"[load] not compiled: {model.info['compile_note']}"]
    assert "engine='graph' has" in model.info["compile_note"]
