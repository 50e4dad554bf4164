"""bench/proofs.py: every subcommand prints its line on a small model; what they refuse."""

import re
import sys
from pathlib import Path

import pytest
from goldens import checkpoint

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import proofs  # noqa: E402


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["load", checkpoint("nano"), "--repeats", "2"], r"[\d.]+ s for [\d.]+ GB, cat [\d.]+ s: [\d.]+ times"),
        (["clone", "--context", "20", "--repeats", "3"], r"[\d.]+ ms at 20 frames, slowest of 3 [\d.]+ ms"),
        (["competitor", "--context", "20", "--repeats", "1", "--frames", "3"], r".* alone: [\d.]+ times as long"),
        (["prefill", "--columns", "40", "--repeats", "1"], r".* of a 40-frame prompt, .* one by one: [\d.]+ of it"),
        (["soak", "--minutes", "0.005"], r"[1-9]\d* frames in [\d.e-]+ minutes, p50 .* keys and values of"),
        (["soak", "--frames", "25"], r"30 frames in [\d.e-]+ minutes, p50 .* keys and values of"),
    ],
    ids=["load", "clone", "competitor", "prefill", "soak", "soak-frames"],
)
def test_every_proof_is_a_line(options, line, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["proofs.py", *options])
    assert proofs.main() == 0
    out = capsys.readouterr().out
    assert re.match(f"{options[0]}: {line}", out), out
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["load", str(BENCH)], "there are no *.safetensors in"),
        (["prefill", "--columns", "3"], "--columns must be 11 or more, not 3"),
        (["soak", "--minutes", "0"], "--minutes must be more than 0, not 0.0"),
        (["clone", "--model", "no-such-model"], "neither a directory nor a model id"),
    ],
    ids=["load", "prefill", "soak", "clone"],
)
def test_what_does_not_fit_is_one_line(options, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["proofs.py", *options])
    assert proofs.main() in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("proofs: error: ")
    assert message in err
    assert err.count("\n") == 1
