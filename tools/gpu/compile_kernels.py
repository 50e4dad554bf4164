"""Compiles kernels/*.metal, translated to CUDA, and kernels/cuda/*.cu with NVRTC, one kernel at a time, and prints what
each needs.

    python tools/gpu/compile_kernels.py [--arch 90] [--only REGEX] [--write FOLDER] [FILE ...]

Needs no GPU: the nvidia-cuda-nvrtc package (or PERSONAPLEX_NVRTC, its folder), and what tools/metalsim needs. Exits
with 1 when a kernel does not compile.
"""

import argparse
import ctypes
import os
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "metalsim"))

sys.path.insert(0, str(ROOT / "tools"))

from embed_kernels import cuda_capability, cuda_parts  # noqa: E402
from metalsim.cuda import to_cuda  # noqa: E402

OPTIONS = ["--std=c++17", "--device-as-default-execution-space", "--generate-line-info", "--ptxas-options=-v"]


def open_nvrtc() -> ctypes.CDLL:
    """NVRTC from the folder that PERSONAPLEX_NVRTC names, or from the installed package."""
    named = os.environ.get("PERSONAPLEX_NVRTC")
    if named:
        folders = [Path(named), Path(named, "lib")]
    else:
        try:
            import nvidia
        except ImportError:
            sys.exit("expected the package nvidia-cuda-nvrtc, or its folder in PERSONAPLEX_NVRTC")
        folders = [folder for root in nvidia.__path__ for folder in Path(root).glob("*/lib")]
    for folder in folders:
        for library in sorted(folder.glob("libnvrtc.so.*"), reverse=True):
            for builtins in folder.glob("libnvrtc-builtins.so.*"):  # which NVRTC 12 does not find by itself
                ctypes.CDLL(str(builtins))
            return ctypes.CDLL(str(library))
    sys.exit(f"expected libnvrtc.so in one of {', '.join(map(str, folders))}")


def compile_one(nvrtc: ctypes.CDLL, text: str, name: str, arch: int) -> tuple[bool, str]:
    """Whether it compiled, and the compiler's log."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None):
        return False, "nvrtcCreateProgram failed"
    options = [f"--gpu-architecture=sm_{arch}", *OPTIONS]
    array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    result = nvrtc.nvrtcCompileProgram(program, len(options), array)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return result == 0, log.value.decode()


def needs(log: str) -> tuple[int, int, int]:
    """Registers, bytes of spills (stores and loads), bytes of shared memory, from ptxas' words."""

    def total(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, log)))

    return total(r"Used (\d+) registers"), total(r"(\d+) bytes spill"), total(r"(\d+) bytes smem")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="all that are for this GPU")
    parser.add_argument("--arch", type=int, default=90, help="compute capability (90)")
    parser.add_argument("--only", default="", help="host_names that this regular expression finds")
    parser.add_argument("--write", type=Path, help="only writes each kernel's text there, HOST_NAME.cu")
    args = parser.parse_args()
    files = args.files or [*sorted((ROOT / "kernels").glob("*.metal")), *sorted((ROOT / "kernels/cuda").glob("*.cu"))]
    bad = 0
    if args.write:
        args.write.mkdir(parents=True, exist_ok=True)
    else:
        nvrtc = open_nvrtc()
        print(f"{'kernel':44} registers  spills  shared  seconds")
    for path in files:
        shared_text, functions = cuda_parts(path) if path.suffix == ".cu" else to_cuda(path).parts()
        if path.suffix == ".cu" and not args.files and cuda_capability(shared_text) > args.arch:
            continue
        for host_name, function in functions.items():
            if not re.search(args.only, host_name):
                continue
            text = f"{shared_text}\n{function}"
            if args.write:
                (args.write / f"{host_name}.cu").write_text(text, encoding="utf-8")
                continue
            start = time.perf_counter()
            done, log = compile_one(nvrtc, text, path.name, args.arch)
            seconds = time.perf_counter() - start
            registers, spills, shared = needs(log)
            print(f"{host_name:44} {registers:9} {spills:7} {shared:7} {seconds:8.2f}")
            if not done:
                print(log)
            bad += not done
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
