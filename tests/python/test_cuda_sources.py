"""csrc/gpu/cuda_sources.cpp is what kernels/*.metal give, and NVRTC, where it is installed, compiles all of it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "metalsim"))
metalsim = pytest.importorskip("metalsim", reason="tools/metalsim is part of a checkout only")
if metalsim.why_not():
    pytest.skip(metalsim.why_not(), allow_module_level=True)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


def test_embedded_sources_are_those_of_the_kernels() -> None:
    done = run("tools/gpu/embed_kernels.py", "--check")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run tools/gpu/embed_kernels.py"


@pytest.mark.parametrize("arch", ["75", "90"])
def test_nvrtc_compiles_a_kernel_of_every_file(arch: str) -> None:
    pytest.importorskip("nvidia.cu13", reason="NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    only = "^(codec_|embed_sum|norm_rms|sample|attend_bf16_d128|attend_combine|q.*_b4_bf16_.*c1)"
    done = run("tools/gpu/compile_kernels.py", "--arch", arch, "--only", only)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 20
