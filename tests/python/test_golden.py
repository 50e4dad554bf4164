# tests/python/test_golden.py: the core against the committed golden data, in every mode of tests/golden/check.py.
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensors
from check import Options, check
from goldens import DATA, GOLDEN, NAMES

GROUPS = ["mimi", "temporal", "depformer", "voice", "lmgen", "sampling"]


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("name", NAMES)
def test_every_group(name, bits):
    chunks = (1, 3, 8, 32) if bits == 16 else (32,)
    lines = check(DATA / name, Options(bits=bits, chunks=chunks))
    assert [line.group for line in lines] == GROUPS
    assert all(line.ok and not line.skipped for line in lines), "\n".join(map(str, lines))
    assert all(line.floats for line in lines[:5])
    assert all(line.integers for line in (lines[0], *lines[3:]))


def altered(tmp_path, change) -> str:
    """A copy of the nano directory with its golden tensors changed."""
    copy = tmp_path / "copy"
    shutil.copytree(DATA / "nano", copy)
    golden = tensors.read(copy / "golden.safetensors")
    change(golden)
    tensors.write(copy / "golden.safetensors", golden)
    return str(copy)


def bump(golden, name):
    golden[name] = golden[name].copy()
    if golden[name].dtype == np.float32:
        golden[name] *= np.float32(1 + 5e-5)
    else:
        golden[name].flat[-1] ^= 1


@pytest.mark.parametrize(
    ("tensor", "group"),
    [
        ("mimi.codes_stream", "mimi"),
        ("mimi.decoded_stream", "mimi"),
        ("temporal.hidden", "temporal"),
        ("depformer.logits", "depformer"),
        ("voice.cache", "voice"),
        ("lmgen.out", "lmgen"),
        ("lmgen.provided_after", "lmgen"),
        ("lmgen.agent_pcm", "lmgen"),
        ("sampling.text.token", "sampling"),
    ],
)
def test_a_small_difference_is_a_miss(tmp_path, tensor, group):
    lines = check(altered(tmp_path, lambda golden: bump(golden, tensor)), Options(steps=("8",), chunks=(8,)))
    assert group in [line.group for line in lines if not line.ok]


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(GOLDEN / "check.py"), *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def test_script_prints_a_line_per_group():
    done = run_script(str(DATA / "nano"), "--depformer-steps", "8", "--chunk", "5", "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [[group, "ok"] for group in GROUPS]


def test_script_takes_threads_for_the_fused_engine_only():
    nano, fused = str(DATA / "nano"), ("--engine", "fused", "--threads")
    one = run_script(nano, *fused, "1", "--depformer-steps", "8", "--chunk", "8")
    assert one.returncode == 0, one.stdout + one.stderr
    for wrong in (("--threads", "2"), (*fused, "-1")):
        done = run_script(nano, *wrong)
        assert done.returncode == 2
        assert "--threads: expected 1 or more" in done.stderr


def test_script_fails_on_a_miss(tmp_path):
    done = run_script(altered(tmp_path, lambda golden: bump(golden, "temporal.hidden")), "--depformer-steps", "8")
    assert done.returncode == 1
    assert "MISS" in done.stdout


def test_missing_weights_name_the_script(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(DATA / "nano", copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["weights_rule"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = run_script(str(copy))
    assert done.returncode == 1
    assert "make_weights.py" in done.stderr


def test_codec_data_alone(tmp_path):
    """A directory without a language model gets a minimal one, and says what it skips."""
    copy = tmp_path / "copy"
    shutil.copytree(DATA / "odd", copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["lm_kwargs"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    golden = tensors.read(copy / "golden.safetensors")
    tensors.write(copy / "golden.safetensors", {k: v for k, v in golden.items() if k.startswith("mimi.")})
    lines = check(copy)
    assert lines[0].ok
    assert lines[0].floats
    assert all(line.skipped for line in lines[1:])
