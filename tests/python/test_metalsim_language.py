"""tools/metalsim: what Metal's words mean on the simulator, and that the translation to CUDA means the same."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "metalsim"))
import metalsim

if metalsim.why_not():
    pytest.skip(metalsim.why_not(), allow_module_level=True)

TEXT = """#include <metal_stdlib>
#include <metal_simdgroup>
using namespace metal;

constant bool add_bias [[function_constant(0)]];
constant int TERMS [[function_constant(1)]];
constant constexpr int SIMDGROUPS = 4;
constant float TABLE[4] = {0.5f, 1.5f, 2.5f, 3.5f};

struct Params { int n; float scale; ulong key; };

template <typename T> METAL_FUNC float twice(device const T* p) { return 2.0f * float(*p); }

// Conversions and arithmetic of a type.
template <typename T>
[[kernel]] void convert(device const float* x [[buffer(0)]], device T* y [[buffer(1)]], device float* z [[buffer(2)]],
    constant Params& p [[buffer(3)]], uint i [[thread_position_in_grid]]) {
  if (int(i) >= p.n) return;
  const T a = T(x[i]);
  y[i] = a * a + T(1.0f);
  z[i] = twice(y + i) * p.scale + TABLE[i % 4];
}
template [[host_name("convert_f32")]] [[kernel]] decltype(convert<float>) convert<float>;
template [[host_name("convert_f16")]] [[kernel]] decltype(convert<half>) convert<half>;
template [[host_name("convert_bf16")]] [[kernel]] decltype(convert<bfloat>) convert<bfloat>;

// Packed numbers: bytes, nibbles, 16 bits.
kernel void unpack(device const uint4* words [[buffer(0)]], device const char4* bytes [[buffer(1)]],
    device const short4* shorts [[buffer(2)]], device float* y [[buffer(3)]], uint i [[thread_position_in_grid]]) {
  const uint4 w = words[i];
  const uint2 half_of = w.zw;
  float sum = 0.0f;
  for (int k = 0; k < 8; k++) sum += float((w.x >> (4 * k)) & 15u) + float((half_of.y >> (4 * k)) & 15u);
  const uchar4 u = as_type<uchar4>(w.y);
  const float4 b = float4(bytes[i]) * float4(shorts[i]);
  y[i] = sum + float(u.x) + float(u.w) * 2.0f + dot(b, float4(1.0f, 2.0f, 3.0f, 4.0f)) + b.xy.y;
}

kernel void integers(device const uint* x [[buffer(0)]], device ulong* y [[buffer(1)]],
    constant Params& p [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  const uint a = x[i];
  const long position = long(a) * 1000003l - 5l;
  y[8 * i] = ulong(mulhi(a, 0xD2511F53u));
  y[8 * i + 1] = p.key + ulong(a) * 0x9E3779B97F4A7C15ul;
  y[8 * i + 2] = ulong(position);
  y[8 * i + 3] = ulong(popcount(a));
  y[8 * i + 4] = ulong(clz(a));
  y[8 * i + 5] = ulong(mulhi(p.key, ulong(a) << 20));
  y[8 * i + 6] = ulong(as_type<uint>(float(a & 0xffffu)));
  y[8 * i + 7] = ulong(min(a, 77u) + clamp(a, 5u, 9u) + uint(abs(int(a & 255u) - 128)));
}

kernel void functions(device const float* x [[buffer(0)]], device float* y [[buffer(1)]],
    uint i [[thread_position_in_grid]]) {
  const float v = x[i];
  y[12 * i] = exp(v);
  y[12 * i + 1] = metal::precise::log(v);
  y[12 * i + 2] = sin(v) * cos(v);
  y[12 * i + 3] = metal::precise::rsqrt(v);
  y[12 * i + 4] = fma(v, v, -1.0f);
  y[12 * i + 5] = tanh(v) + floor(v) + rint(v);
  y[12 * i + 6] = max(v, 1.5f) + fmin(v, 0.5f) + select(1.0f, 2.0f, v > 1.0f);
  y[12 * i + 7] = pow(v, 1.5f) + log2(v) + exp2(v);
  float2 two = float2(v, 2.0f);
  two *= float2(3.0f);
  y[12 * i + 8] = two.x + two.y + length_squared(two);
  y[12 * i + 9] = fast::exp(-v);
  y[12 * i + 10] = atan2(v, 2.0f) + copysign(v, -1.0f) + fract(v);
  y[12 * i + 11] = isinf(v / 0.0f) && !isnan(v) ? INFINITY : 0.0f;
}

kernel void lanes(device const int* x [[buffer(0)]], device int* y [[buffer(1)]],
    uint i [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],
    uint sg [[simdgroup_index_in_threadgroup]]) {
  const int v = x[i];
  device int* out = y + 12 * i;
  out[0] = simd_sum(v);
  out[1] = simd_max(v);
  out[2] = simd_min(v);
  out[3] = simd_shuffle(v, ushort((lane + 5) % 32));
  out[4] = simd_shuffle_xor(v, 3);
  out[5] = simd_shuffle_down(v, 2);
  out[6] = simd_shuffle_up(v, 2);
  out[7] = simd_prefix_inclusive_sum(v);
  out[8] = simd_prefix_exclusive_sum(v);
  out[9] = int(ulong(simd_ballot(v > 0)) & 0x7fffffffu);
  out[10] = (simd_any(v == x[0]) ? 1 : 0) + (simd_all(v > -1000) ? 2 : 0) + int(sg) * 4;
  out[11] = simd_broadcast(v, 7) + int(simd_sum(uint(lane)));
}

// A sum over a threadgroup, counters, and dynamic threadgroup memory.
kernel void reduce(device const float* x [[buffer(0)]], device float* y [[buffer(1)]],
    device atomic_int* count [[buffer(2)]], device atomic_float* total [[buffer(3)]],
    threadgroup float* work [[threadgroup(0)]], uint3 group [[threadgroup_position_in_grid]],
    uint i [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]], uint sg [[simdgroup_index_in_threadgroup]],
    uint3 threads [[threads_per_threadgroup]]) {
  threadgroup float parts[SIMDGROUPS];
  threadgroup atomic_uint positive[1];
  if (i == 0) atomic_store_explicit(positive, 0u, memory_order_relaxed);
  work[i] = x[group.x * threads.x + i];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float v = work[(i + 1) % threads.x] + (add_bias ? 1.0f : 0.0f);
  for (int k = 1; k < TERMS; k++) v += 0.5f;
  if (v > 0.0f) atomic_fetch_add_explicit(positive, 1u, memory_order_relaxed);
  v = simd_sum(v);
  if (lane == 0) parts[sg] = v;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (i != 0) return;
  v = 0.0f;
  for (int k = 0; k < SIMDGROUPS; k++) v += parts[k];
  y[group.x] = v;
  atomic_fetch_add_explicit(count, int(atomic_load_explicit(positive, memory_order_relaxed)), memory_order_relaxed);
  atomic_fetch_add_explicit(total, v, memory_order_relaxed);
}

// A table of pages, 8-byte addresses.
kernel void pages(device uchar* const device* table [[buffer(0)]], device float* y [[buffer(1)]],
    constant Params& p [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  if (int(i) >= p.n) return;
  device const float* keys = (device const float*)(table[i / 32] + 64);
  device const char* quantized = (device const char*)(table[i / 32]);
  y[i] = keys[i % 32] * p.scale + float(quantized[i % 64]);
}
""".replace("length_squared(two)", "dot(two, two)")
CONSTANTS = {"add_bias": True, 1: 3}


@pytest.fixture(scope="module", params=["checked", "plain", "cuda"])
def library(request):
    if request.param == "cuda":
        return metalsim.compile_cuda(TEXT, constants=CONSTANTS)
    return metalsim.compile(TEXT, check=request.param == "checked", constants=CONSTANTS)


@pytest.fixture
def random():
    return np.random.default_rng(5)


def test_typecheck():
    metalsim.typecheck(TEXT, constants=CONSTANTS)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_conversions_round_each_operation(library, random, kind):
    dtype = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[kind]
    x = random.standard_normal(100).astype(np.float32)
    x[:3] = 0, 70000, -1e-8
    y, z = np.zeros(100, dtype), np.zeros(100, np.float32)
    library.run(f"convert_{kind}", [x, y, z, struct.pack("if Q", 100, 3.0, 0)], groups=4)
    with np.errstate(over="ignore"):
        a = x.astype(dtype)
        square = (a.astype(np.float32) * a.astype(np.float32)).astype(dtype)
        expected = (square.astype(np.float32) + np.float32(1)).astype(dtype)
    assert np.array_equal(y, expected)
    table = np.resize(np.array([0.5, 1.5, 2.5, 3.5], np.float32), 100)
    assert np.array_equal(z, (np.float32(2) * y.astype(np.float32)) * np.float32(3) + table)


def test_packed_numbers(library, random):
    words = random.integers(0, 2**32, (32, 4), dtype=np.uint32)
    small = random.integers(-128, 128, (32, 4), dtype=np.int8)
    shorts = random.integers(-3000, 3000, (32, 4), dtype=np.int16)
    y = np.zeros(32, np.float32)
    library.run("unpack", [words, small, shorts, y])
    nibbles = sum(((words[:, 0] >> (4 * k)) & 15) + ((words[:, 3] >> (4 * k)) & 15) for k in range(8))
    product = small.astype(np.int64) * shorts
    expected = nibbles + (words[:, 1] & 255) + 2 * (words[:, 1] >> 24) + product @ [1, 2, 3, 4] + product[:, 1]
    assert np.array_equal(y, expected.astype(np.float32))


def test_integers(library, random):
    x = random.integers(0, 2**32, 64, dtype=np.uint32)
    x[:3] = 0, 1, 2**32 - 1
    y = np.zeros((64, 8), np.uint64)
    key = 0xFEDCBA9876543210
    library.run("integers", [x, y, struct.pack("ifQ", 64, 0, key)], groups=2)
    for a, row in zip(map(int, x), y.tolist(), strict=True):
        assert row == [
            a * 0xD2511F53 >> 32,
            (key + a * 0x9E3779B97F4A7C15) % 2**64,
            (a * 1000003 - 5) % 2**64,
            a.bit_count(),
            32 - a.bit_length(),
            key * (a << 20 & 2**64 - 1) >> 64,
            int(np.float32(a & 0xFFFF).view(np.uint32)),
            min(a, 77) + min(max(a, 5), 9) + abs((a & 255) - 128),
        ]


def test_functions(library, random):
    x = random.uniform(0.1, 4, 64).astype(np.float32)
    y = np.zeros((64, 12), np.float32)
    library.run("functions", [x, y], groups=2)
    v = x.astype(np.float64)
    expected = [
        np.exp(v), np.log(v), np.sin(v) * np.cos(v), v**-0.5, v * v - 1, np.tanh(v) + np.floor(v) + np.rint(v),
        np.maximum(v, 1.5) + np.minimum(v, 0.5) + np.where(v > 1, 2, 1), v**1.5 + np.log2(v) + 2**v,
        3 * v + 6 + 9 * v * v + 36, np.exp(-v), np.arctan2(v, 2) - v + v % 1, np.full(64, np.inf),
    ]  # fmt: skip
    np.testing.assert_allclose(y.T, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffle:9"])
def test_lanes(library, random, order):
    x = random.integers(-99, 100, 128, dtype=np.int32)
    y = np.zeros((128, 12), np.int32)
    library.run("lanes", [x, y], threads=128, order=order)
    for sg in range(4):
        v = x[32 * sg : 32 * sg + 32].astype(np.int64)
        lane = np.arange(32)
        ballot = sum(1 << k for k in range(31) if v[k] > 0)
        expected = [
            v.sum(), v.max(), v.min(), v[(lane + 5) % 32], v[lane ^ 3], v[np.where(lane < 30, lane + 2, lane)],
            v[np.where(lane > 1, lane - 2, lane)], v.cumsum(), v.cumsum() - v, ballot,
            int((v == x[0]).any()) + 2 + 4 * sg, v[7] + 496,
        ]  # fmt: skip
        assert np.array_equal(y[32 * sg : 32 * sg + 32].T, np.stack([np.broadcast_to(e, 32) for e in expected]))


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffle:9"])
def test_threadgroup_memory_atomics_and_function_constants(library, random, order):
    x = random.integers(-9, 9, (3, 128)).astype(np.float32)
    y, count, total = np.zeros(3, np.float32), np.zeros(1, np.int32), np.zeros(1, np.float32)
    library.run("reduce", [x, y, count, total], groups=3, threads=128, order=order, threadgroup_bytes=[512])
    assert np.array_equal(y, (x + 2).sum(1))
    assert count[0] == (x + 2 > 0).sum()
    assert total[0] == (x + 2).sum()


def test_pages(library, random):
    store = [random.integers(0, 50, 64).astype(np.float32) for _ in range(3)]
    table = np.array([metalsim.address(page) for page in store], np.uint64)
    y = np.zeros(96, np.float32)
    library.run("pages", [table, y, struct.pack("ifQ", 96, 2.0, 0)], groups=3)
    i = np.arange(96)
    raw = np.stack([page.view(np.int8) for page in store])
    assert np.array_equal(y, np.stack(store)[i // 32, 16 + i % 32] * 2 + raw[i // 32, i % 64])


def test_names(library):
    expected = {
        "convert_f32",
        "convert_f16",
        "convert_bf16",
        "unpack",
        "integers",
        "functions",
        "lanes",
        "reduce",
        "pages",
    }
    assert set(library.names()) == expected


def test_only_some_kernels():
    assert metalsim.compile(TEXT, constants=CONSTANTS, only=["convert_f16"]).names() == ["convert_f16"]
    with pytest.raises(metalsim.CompileError, match="no kernel has the host_name convert"):
        metalsim.compile(TEXT, constants=CONSTANTS, only=["convert"])


def test_function_constant_without_a_value():
    with pytest.raises(metalsim.CompileError, match=r"function constant 'TERMS' \(index 1\) has no value"):
        metalsim.compile(TEXT, constants={"add_bias": False})


def test_errors_name_the_line():
    with pytest.raises(metalsim.CompileError, match=r"kernel\.metal:\d+:\d+: error: .*undeclared"):
        metalsim.compile(TEXT.replace("TABLE[i % 4]", "TABEL[i % 4]"), constants=CONSTANTS)


def test_cuda_kernels_begin_by_waiting_for_those_before_them():
    shared, functions = metalsim.to_cuda(TEXT, constants=CONSTANTS).parts()
    assert "griddepcontrol.wait" in shared
    assert functions
    assert all("{ msl_cuda::begin_kernel(); " in function for function in functions.values())


@pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc is not installed")
def test_nvcc_accepts_the_translation(tmp_path):
    source = metalsim.to_cuda(TEXT, constants=CONSTANTS)
    (tmp_path / "kernels.cu").write_text(source.text)
    command = ["nvcc", "-std=c++17", "-arch=sm_90", "-cubin", "kernels.cu", "-o", "kernels.cubin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cubin = (tmp_path / "kernels.cubin").read_bytes()
    assert all(symbol.encode() in cubin for symbol in source.names.values())
