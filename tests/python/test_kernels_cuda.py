"""The hand-written CUDA kernels (kernels/cuda), run by tools/cudasim without a GPU, against float64."""

import functools
import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "cudasim"))
cudasim = pytest.importorskip("cudasim", reason="tools/cudasim is part of a checkout only")
if cudasim.why_not():
    pytest.skip(cudasim.why_not(), allow_module_level=True)

from lm_data import (  # noqa: E402
    Ring,
    close,
    columns_of,
    fixed,
    floats,
    make_matrix,
    product_results,
    qkv_results,
    rms_norm,
    window,
)

ORDERS = [0, 1, 7]


@functools.cache
def library(file: str, name: str) -> Any:
    return cudasim.compile(ROOT / "kernels" / "cuda" / f"{file}.cu", [name])


def ring_of(rng: np.random.Generator, bits: int, heads: int, head_dim: int, slots: int) -> Ring:
    return Ring(rng, bits, heads, head_dim, slots, lambda page: page.ctypes.data)


# The simulator.

SMALL = """// small.cu: what is wrong with most of these kernels, cudasim finds.
using u32 = unsigned int;
__device__ u32 of_block(const u32* p, u32 rank) {
  u32 address = u32(__cvta_generic_to_shared(p));
  float out;
  asm volatile("mapa.shared::cluster.u32 %0, %0, %1;" : "+r"(address) : "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(out) : "r"(address) : "memory");
  return __builtin_bit_cast(u32, out);
}
__device__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
#define KERNEL(name, ...) extern "C" __global__ void name(u32* out, const u32* in) { __VA_ARGS__ }
// Kernels:
"""
BUGS = {
    # what the only warp does; what is said about it
    "behind_an_array": (
        "out[threadIdx.x] = in[threadIdx.x + 1];",
        r"read memory that is not there.*\(block 0 0 0, thread 31\)",
    ),
    "fixed": ("((u32*)in)[0] = 1;", r"wrote to what is not there or is fixed.*thread 0\)"),
    "misaligned": ("*(uint4*)out = *(const uint4*)(in + 1);", "misaligned"),
    "lanes_that_do_not_come": (
        "if (threadIdx.x < 31) out[0] = __shfl_sync(0xFFFFFFFFu, 1, 0);",
        r"nobody can go on\s*block 0: 31 threads __shfl_sync; 1 threads have exited",
    ),
    "lanes_that_go_elsewhere": (
        "if (threadIdx.x < 16) out[0] = __shfl_sync(0xFFFFFFFFu, 1, 0);"
        " else out[0] = __shfl_xor_sync(0xFFFFFFFFu, 1, 1);",
        "__shfl_xor_sync while others of its warp are at __shfl_sync",
    ),
    "threads_that_do_not_come": ("if (threadIdx.x < 31) __syncthreads();", "31 threads wait at __syncthreads"),
    "no_such_block": ("__shared__ u32 s; out[0] = of_block(&s, 1);", "rank 1 in a cluster of 1"),
}
_SUM = "__shared__ u32 s[64]; s[threadIdx.x] = threadIdx.x; {} out[threadIdx.x] = s[63 - threadIdx.x];"
_NEXT = (
    "__shared__ u32 s; if (threadIdx.x == 0) s = 10 + blockIdx.x; {}"
    " if (threadIdx.x == 0) out[blockIdx.x] = of_block(&s, (blockIdx.x + 1) % 4); {}"
)
_ALL = "cluster_barrier();"
OTHERS = {
    "right": "out[threadIdx.x] = 2 * in[threadIdx.x];",
    "barrier": _SUM.format("__syncthreads();"),
    "no_barrier": _SUM.format(""),
    "cluster": _NEXT.format(_ALL, _ALL),
    "cluster_no_first": _NEXT.format("", _ALL),
    "cluster_no_last": _NEXT.format(_ALL, ""),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("small") / "small.cu"
    bodies = OTHERS | {name: body for name, (body, _) in BUGS.items()}
    path.write_text(SMALL + "\n".join(f"KERNEL({name}, {body})" for name, body in bodies.items()), encoding="utf-8")
    return cudasim.compile(path)


def run_small(small: Any, name: str, threads: int = 32, **options: Any) -> list[int]:
    out = np.zeros(threads, np.uint32)
    small.run(name, [out, fixed(np.arange(threads, dtype=np.uint32))], threads=threads, **options)
    return out.tolist()


@pytest.mark.parametrize("bug", BUGS)
def test_finds(bug: str, small: Any) -> None:
    with pytest.raises(cudasim.Fault, match=BUGS[bug][1]):
        run_small(small, bug)
    assert run_small(small, "right") == list(range(0, 64, 2))


@pytest.mark.parametrize("name", ["barrier", "no_barrier"])
def test_an_order_shows_that_a_barrier_is_missing(name: str, small: Any) -> None:
    right = [run_small(small, name, threads=64, order=order) == list(range(63, -1, -1)) for order in ORDERS]
    assert all(right) == (name == "barrier")


@pytest.mark.parametrize("name", ["cluster", "cluster_no_first", "cluster_no_last"])
def test_an_order_shows_that_a_barrier_of_a_cluster_is_missing(name: str, small: Any) -> None:
    got = [run_small(small, name, grid=(8, 1, 1), cluster=4, order=order)[:8] for order in ORDERS]
    assert (got == 3 * [[11, 12, 13, 10, 15, 16, 17, 14]]) == (name == "cluster")


def test_knows_no_other_instruction() -> None:
    with pytest.raises(cudasim.CompileError, match=r"expected an instruction that ptx.h has, got asm 'membar.gl;'"):
        cudasim.translate('asm volatile("membar.gl;");')


def test_has_the_instructions_of_the_kernels() -> None:
    texts = [cudasim.translate(cudasim.cuda_parts(path)[0]) for path in (ROOT / "kernels" / "cuda").glob("*.cu")]
    assert not [text for text in texts if re.search(r"\basm\b\s*(volatile)?\s*\(", text)]
    assert {name for name in cudasim.PTX.values() if f"ptx_{name}(" not in "".join(texts)} == set()


# lm_product_column, lm_product_columns: y = W norm(x)

PROJECT = [
    # format, n, k, columns, warps, split, passes
    ("b4_bf16", 37, 1024, 1, 2, 1, 1),
    ("b4_f16", 50, 2816, 1, 4, 4, 3),
    ("b4_bf16", 20, 11264 + 512, 1, 4, 2, 1),  # more than can be staged at once
    ("b4_bf16", 70, 2048, 1, 16, 8, 3),  # more passes than there is room for at once
    ("b8_bf16", 19, 704, 1, 4, 2, 3),
    ("b8_f16", 33, 512, 1, 2, 1, 1),
    ("bf16", 40, 544, 1, 4, 2, 2),
    ("b4_bf16", 40, 1024, 5, 4, 2, 1),
    ("b4_f16", 20, 640, 19, 2, 1, 2),
    ("b8_bf16", 20, 704, 8, 2, 2, 1),
    ("bf16", 36, 544, 33, 2, 1, 1),
]


@pytest.mark.parametrize("epilogue", ["store", "add", "swiglu"])
@pytest.mark.parametrize("case", PROJECT, ids=lambda c: "-".join(map(str, c)))
def test_project(case: tuple, epilogue: str) -> None:
    name, n, k, columns, warps, split, passes = case
    rng = np.random.default_rng(n + k)
    n += n % 2
    with_norm = epilogue != "add"
    w = make_matrix(rng, name, n, k)
    x, weight = floats(rng, columns, k, size=3.0), floats(rng, k)
    before = floats(rng, columns, n // 2 if epilogue == "swiglu" else n)
    product = (rms_norm(x, weight) if with_norm else x.astype(np.float64)) @ w.value.T
    expected = product_results(epilogue, product, before)
    tile = "mma_c1" if columns == 1 else "mma_c8" if columns <= 8 else "mma_c32"
    file = "lm_product_column" if columns == 1 else "lm_product_columns"
    kind = ["store", "add", "swiglu"].index(epilogue)
    params = struct.pack("8i", n, k, columns, w.group_shift, split, passes, kind, int(with_norm))
    results = []
    for order in ORDERS:
        y = before.copy()
        library(file, f"qmv_{name}_{tile}").run(
            f"qmv_{name}_{tile}",
            [fixed(x), fixed(weight), *w.buffers, y, params],
            grid=(-(-n // (warps // split * 16 * passes)), -(-columns // (8 if tile == "mma_c8" else 32)), 1),
            threads=32 * warps,
            order=order,
        )
        close(y, expected, 1e-5 if columns == 1 else 4e-3)
        results.append(y)
    assert all((y == results[0]).all() for y in results)


QKV = [
    # format, kv bits, heads, head_dim, k, columns, warps, split, passes, rotary
    ("b4_bf16", 16, 2, 64, 384, 1, 2, 1, 2, True),
    ("b8_bf16", 8, 1, 128, 128, 1, 8, 1, 1, True),
    ("bf16", 16, 2, 16, 96, 1, 2, 1, 1, False),
    ("b4_f16", 8, 2, 32, 256, 9, 8, 2, 1, True),
    ("b4_f16", 16, 2, 32, 256, 34, 4, 1, 2, True),
]


@pytest.mark.parametrize("case", QKV, ids=lambda c: "-".join(map(str, c)))
def test_project_qkv(case: tuple) -> None:
    name, bits, heads, head_dim, k, columns, warps, split, passes, rotary = case
    rng = np.random.default_rng(k)
    n = 3 * heads * head_dim
    w = make_matrix(rng, name, n, k)
    x, weight = floats(rng, columns, k), floats(rng, k)
    angle = rng.uniform(-np.pi, np.pi, (columns, head_dim // 2))
    angles = np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)
    slots, start = 64, 58 + 64 * 1000  # wraps after 6 columns
    at = columns_of([(start + t, 0) for t in range(columns)], slots)
    expected = qkv_results(rms_norm(x, weight) @ w.value.T, heads, angle if rotary else None)
    tile = "mma_c1" if columns == 1 else "mma_c32"
    file = "lm_product_column" if columns == 1 else "lm_product_columns"
    exact = 1e-5 if columns == 1 else 4e-3
    for order in ORDERS:
        ring = ring_of(rng, bits, heads, head_dim, slots)
        filled = [(start + t) % slots for t in range(columns)]
        before = ring.without(filled)
        q = np.zeros((columns, heads, head_dim), np.float32)
        params = struct.pack(
            "11iI", n, k, columns, w.group_shift, split, passes, 1, heads, head_dim, int(rotary), bits, ring.offset
        )
        library(file, f"qkv_{name}_{tile}").run(
            f"qkv_{name}_{tile}",
            [fixed(x), fixed(weight), *w.buffers, fixed(angles), at, fixed(ring.table), q, params],
            grid=(-(-n // (warps // split * 16 * passes)), -(-columns // 32), 1),
            threads=32 * warps,
            order=order,
        )
        close(q, expected[:, 0], exact)
        for t, slot in enumerate(filled):
            for part in range(2):
                for head in range(heads):
                    close(ring.read(slot, part, head), expected[t, 1 + part, head], exact + {16: 3e-3, 8: 1e-2}[bits])
                    if bits == 8:
                        cells, scale = ring.row(slot, part, head)
                        assert np.abs(cells.view(np.int8)).max() == 127
                        largest = np.abs(expected[t, 1 + part, head]).max()
                        assert scale[0] == pytest.approx(largest / 127, rel=1e-5 if columns == 1 else 1e-2)
        assert all((a == b).all() for a, b in zip(ring.without(filled), before, strict=True))


@pytest.mark.parametrize(("name", "heads", "head_dim", "n", "position", "warps", "split"), [
    ("b4_bf16", 4, 64, 30, 0, 2, 1),
    ("b8_f16", 4, 32, 37, 15, 4, 2),
    ("bf16", 3, 32, 20, 77, 2, 1),
])  # fmt: skip
def test_attend_project(name: str, heads: int, head_dim: int, n: int, position: int, warps: int, split: int) -> None:
    rng = np.random.default_rng(n)
    ring = ring_of(rng, 16, heads, head_dim, 64)
    w = make_matrix(rng, name, n, heads * head_dim)
    q, before = floats(rng, heads, head_dim, size=3.0), floats(rng, n)
    visible = window(position, 32 if position > 64 else 16)
    expected = before + w.value @ ring.attention(q, *visible).reshape(-1)
    params = struct.pack("7iI", n, heads * head_dim, 6, split, heads, head_dim, ring.slots, ring.offset)
    for order in ORDERS:
        y = before.copy()
        library("lm_product_column", f"attend_project_{name}_mma_c1").run(
            f"attend_project_{name}_mma_c1",
            [fixed(q), columns_of([visible], ring.slots), fixed(ring.table), *w.buffers, y, params],
            grid=(-(-n // (warps // split * 16)), 1, 1),
            threads=32 * warps,
            order=order,
        )
        close(y, expected, 1e-5)


@pytest.mark.parametrize(("cells", "heads", "head_dim", "slots", "visible"), [
    ("bf16", 2, 128, 320, [window(7 * 320 + 20, 290)]),
    ("bf16", 1, 64, 160, [window(p, 129) for p in (0, 151, 161)]),
    ("int8", 2, 128, 64, [window(64 * 99 + 3, 64)]),
    ("int8", 1, 64, 640, [window(2000, 600)]),
])  # fmt: skip
def test_attend(cells: str, heads: int, head_dim: int, slots: int, visible: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(head_dim + slots)
    ring = ring_of(rng, {"bf16": 16, "int8": 8}[cells], heads, head_dim, slots)
    q = floats(rng, len(visible), heads, head_dim, size=4.0)
    expected = np.stack([ring.attention(q[t], *visible[t]) for t in range(len(visible))])
    params = struct.pack("4iI", heads, head_dim, slots, 1, ring.offset)
    name = f"attend_{cells}_d{head_dim}_cluster"
    for order in ORDERS:
        out = np.full((len(visible), heads, head_dim), np.nan, np.float32)
        library("lm_attend", name).run(
            name,
            [fixed(q), columns_of(visible, slots), fixed(ring.table), fixed(np.zeros(1, np.float32)), out, params],
            grid=(8, heads, len(visible)),
            threads=256,
            cluster=8,
            order=order,
        )
        close(out, expected, 1e-5)


def test_reads_no_row_beyond_n() -> None:
    """That it is a fault to have one row less than n says shows that a kernel that reads too far would be found."""
    rng = np.random.default_rng(0)
    w = make_matrix(rng, "b4_bf16", 20, 1024)
    name = "qmv_b4_bf16_mma_c1"

    def run(n: int) -> None:
        y = np.zeros(n, np.float32)
        params = struct.pack("8i", n, 1024, 1, 6, 1, 1, 0, 0)
        arguments = [floats(rng, 1, 1024), floats(rng, 1024), *w.buffers, y, params]
        library("lm_product_column", name).run(name, arguments, threads=64)

    run(20)
    with pytest.raises(cudasim.Fault, match="memory that is not there"):
        run(21)
