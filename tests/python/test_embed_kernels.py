"""What the build embeds of kernels/*.metal and kernels/cuda/*.cu: all of it, with any compiler; NVRTC, where it is
installed, takes it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EMBED = ROOT / "tools" / "embed_kernels.py"
if not EMBED.is_file():
    pytest.skip("tools are part of a checkout and of the source archive only", allow_module_level=True)
COMPILERS = [found for name in ("g++", "clang++-19", "clang++") if (found := shutil.which(name))]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)


def embed(out: Path, compiler: str, *files: Path) -> dict[str, str]:
    # Isolated: a build has no other packages.
    done = run("-I", "-S", EMBED, "--compiler", compiler, "--out", out, *files)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_text("utf-8") for path in out.iterdir()}


def code(files: dict[str, str]) -> dict[str, list[str]]:
    """Without blank lines, and the markers that some compilers write instead of many of them."""
    return {
        name: [line for line in text.split("\n") if line.strip() and not line.startswith("#line ")]
        for name, text in files.items()
    }


def test_embeds_every_kernel_whichever_compiler_preprocesses(tmp_path):
    first, *others = [embed(tmp_path / str(i), compiler) for i, compiler in enumerate(COMPILERS)]
    assert set(first) == {"metal_sources.cpp", "cuda_sources.cpp", "tuning_tables.cpp"}
    for path in (ROOT / "kernels" / "tuning").glob("*.json"):
        assert f'{{"{path.stem}", R"msl({path.read_text("utf-8")})msl"}}' in first["tuning_tables.cpp"]
    for path in (ROOT / "kernels").glob("*.metal"):
        assert path.read_text("utf-8") in first["metal_sources.cpp"]
        assert f'{{"{path.name}", ' in first["cuda_sources.cpp"]
    for path in (ROOT / "kernels" / "cuda").glob("*.cu"):
        assert f'{{"{path.name}", ' in first["cuda_sources.cpp"]
    assert all(code(other) == code(first) for other in others)


def test_takes_any_text_as_it_is(tmp_path):
    kernel = tmp_path / "odd.metal"
    kernel.write_text('// )msl" and \\ and "\n[[kernel]] void odd(device int* x [[buffer(0)]]) { x[0] = 1; }\n')
    made = embed(tmp_path / "out", COMPILERS[0], kernel)
    assert f'R"msl_({kernel.read_text()})msl_", {{"odd"}}' in made["metal_sources.cpp"]
    assert 'extern "C" __global__ void odd(' in made["cuda_sources.cpp"]


def test_a_table_that_is_no_json_stops_the_build(tmp_path):
    table = tmp_path / "odd.json"
    table.write_text('{"jobs": [}')
    done = run(EMBED, "--compiler", COMPILERS[0], "--out", tmp_path / "out", *(ROOT / "kernels").glob("read*"), table)
    assert done.returncode == 1
    assert "odd.json: " in done.stderr


def test_a_kernel_that_cannot_be_translated_stops_the_build(tmp_path):
    kernel = tmp_path / "wrong.metal"
    kernel.write_text("#error this one\n")
    done = run(EMBED, "--compiler", COMPILERS[0], "--out", tmp_path / "out", kernel)
    assert done.returncode == 1
    assert "this one" in done.stderr
    assert "wrong.metal" in done.stderr


def test_cuda_files_are_taken_kernel_by_kernel_with_what_they_include(tmp_path):
    (tmp_path / "more.cuh").write_text("// more.cuh\n#pragma once\nint more();\n")
    kernel = tmp_path / "own.cu"
    kernel.write_text('#include "more.cuh"\n#define ONE(name) x\n// Kernels:\nONE(first_one)\nONE(second, 4)\n')
    made = embed(tmp_path / "out", COMPILERS[0], kernel)["cuda_sources.cpp"]
    assert '{"own.cu", R"msl(// more.cuh\nint more();\n\n#define ONE(name) x\n)msl", {' in made
    assert '{"first_one", R"msl(ONE(first_one))msl"},\n{"second", R"msl(ONE(second, 4))msl"}}, 80}' in made


@pytest.mark.parametrize("text", ["ONE(first)\n", "// Kernels:\n", "// Kernels:\nONE(first);\n"])
def test_a_cuda_file_without_a_list_of_kernels_stops_the_build(tmp_path, text):
    kernel = tmp_path / "own.cu"
    kernel.write_text(text)
    done = run(EMBED, "--compiler", COMPILERS[0], "--out", tmp_path / "out", kernel)
    assert done.returncode == 1
    assert "own.cu: expected " in done.stderr


@pytest.mark.parametrize("arch", ["75", "80", "90"])
def test_nvrtc_compiles_a_kernel_of_every_file(arch):
    pytest.importorskip("nvidia.cu13", reason="NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    only = "^(codec_|embed_sum|norm_rms|sample|read_memory_u8|attend_bf16_d128|attend_combine|q.*_b4_bf16_.*c1)"
    done = run("tools/gpu/compile_kernels.py", "--arch", arch, "--only", only)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 20
