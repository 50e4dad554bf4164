"""tools/metalsim finds every class of bug that it says it finds, and nothing in kernels that are right."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "metalsim"))
import metalsim

if metalsim.why_not():
    pytest.skip(metalsim.why_not(), allow_module_level=True)

HEAD = "#include <metal_stdlib>\nusing namespace metal;\n"
SIGNATURE = (
    "(device const float* x [[buffer(0)]], device float* y [[buffer(1)]], device atomic_uint* n [[buffer(2)]],"
    " uint lid [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],"
    " uint sg [[simdgroup_index_in_threadgroup]], uint g [[threadgroup_position_in_grid]])"
)
TG = "threadgroup_barrier(mem_flags::mem_threadgroup);"
DEVICE = "threadgroup_barrier(mem_flags::mem_device);"

# Name: (the body, which gets 128 threads unless it says otherwise, and a part of the fault's text, "" for none).
BUGS = {
    "right_reduce": (
        f"threadgroup float a[4]; float s = simd_sum(x[lid]); if (lane == 0) a[sg] = s; {TG}"
        "if (lid == 0) y[g] = a[0] + a[1] + a[2] + a[3];",
        "",
    ),
    "missing_barrier": (
        "threadgroup float a[4]; float s = simd_sum(x[lid]); if (lane == 0) a[sg] = s;"
        "simdgroup_barrier(mem_flags::mem_threadgroup); if (lid == 127) y[0] = a[0] + a[1] + a[2] + a[3];",
        "another thread wrote it, with no barrier",
    ),
    "write_after_read": (
        f"threadgroup float a[128]; a[lid] = x[lid]; {TG} float v = a[(lid + 1) % 128]; a[lid] = v; {TG}"
        "if (lid == 0) y[0] = a[5];",
        "data race on threadgroup memory",
    ),
    "wrong_flags": (
        f"threadgroup float a[128]; a[lid] = x[lid]; {DEVICE} if (lid == 0) y[0] = a[5];",
        "data race on threadgroup memory",
    ),
    "right_simdgroup_scratch": (
        "threadgroup float a[128]; a[lid] = x[lid]; simdgroup_barrier(mem_flags::mem_threadgroup);"
        "float v = a[sg * 32] + a[sg * 32 + 31]; simdgroup_barrier(mem_flags::mem_threadgroup);"
        "if (lane == 0) a[lid] = v; if (lid == 0) y[g] = a[0];",
        "",
    ),
    "divergent_simd": (
        f"float v = x[lid]; if (lane < 16) v = simd_sum(v); {TG} if (lid == 0) y[0] = v;",
        "divergence: no thread can go on",
    ),
    "divergent_loop": (
        "float v = 0; for (uint i = lid; i < 100; i += 32) v += simd_max(x[i]); if (lid == 0) y[0] = v;",
        "simd operation by lanes 0000000f only",
    ),
    "different_simd": (
        "float v = x[lid]; if (lane < 16) v = simd_sum(v);\nelse v = simd_max(v);\nif (lid == 0) y[0] = v;",
        "divergent simd operation",
    ),
    "early_return": (f"if (lid >= 100) return; {TG} if (lid == 0) y[0] = x[0];", "not reached by 28 threads"),
    "two_barriers": (f"if (lid < 64) {TG} else {TG} if (lid == 0) y[0] = x[0];", "different barriers"),
    "read_beyond": ("if (lid == 0) y[0] = x[lid + 128];", "byte offset 512 of buffer(0) `x`, which has 512"),
    "read_half_beyond": (
        "if (lid == 0) y[0] = (*(device const float2*)(x + lid + 126 + lane)).x"
        " + (*(device const packed_float2*)(x + 127)).v[1];",
        "buffer(0) `x`, which has 512",
    ),
    "read_struct_beyond": (
        "struct Eight { float v[8]; }; if (lid == 0) { Eight e = ((device const Eight*)(x + 121))[0];"
        " for (int i = 0; i < 4; i++) y[i] = e.v[i] + e.v[i + 4]; }",
        "buffer(0) `x`, which has 512",
    ),
    "read_vector_beyond": (
        "if (lid == 0) { float3 v = *(device const float3*)(x + 128); y[0] = v.x + v.y + v.z; }",
        "buffer(0) `x`, which has 512",
    ),
    "read_before": ("if (lid == 0) y[0] = x[int(lid) - 1];", "byte offset -4 of buffer(0) `x`"),
    "write_beyond": ("if (lid == 0) y[lid + 4] = 1.0f;", "out-of-bounds write of 4 bytes: byte offset 16 of buffer(1)"),
    "atomic_beyond": ("atomic_fetch_add_explicit(n + 1, 1u, memory_order_relaxed);", "byte offset 4 of buffer(2) `n`"),
    "threadgroup_beyond": (
        f"threadgroup float a[100]; threadgroup float b[64]; a[lid] = x[lid]; {TG} if (lid == 0) y[0] = a[3];",
        "array index out of bounds",
    ),
    "threadgroup_pointer_beyond": (
        "threadgroup float a[128]; threadgroup float* p = a + 1; p[lid] = x[lid];",
        "byte offset 512 of threadgroup memory `a`, which has 512",
    ),
    "private_beyond": (
        "float a[8]; for (uint i = 0; i < 8 + lid % 2; i++) a[i] = x[i]; if (lid < 4) y[lid] = a[lid % 8];",
        "array index out of bounds",
    ),
    "uninitialised": (
        f"threadgroup float a[32]; if (lid < 4) a[lid] = x[lid]; {TG}"
        "if (lid == 0) { float s = 0; for (int i = 0; i < 32; i++) s += a[i]; y[0] = s; }",
        "read of uninitialised threadgroup memory `a` byte 16",
    ),
    "uninitialised_update": (
        f"threadgroup float a[128]; a[lid] += x[lid]; {TG} if (lid == 0) y[0] = a[0];",
        "read of uninitialised threadgroup memory",
    ),
    "uninitialised_atomic": (
        "threadgroup atomic_uint a[1]; atomic_fetch_add_explicit(a, 1u, memory_order_relaxed);",
        "read of uninitialised threadgroup memory",
    ),
    "constant_write": ("if (lid == 0) ((device float*)x)[0] = 1.0f;", "write to read-only buffer(0) `x` at byte 0"),
    "groups_write_same": ("if (lid == 0) y[g / 2] = x[g];", "another threadgroup of the same dispatch wrote it"),
    "groups_read_and_write": (
        "if (lid == 0) y[g] = y[(g + 1) % 4] + 1.0f;",
        "another threadgroup of the same dispatch",
    ),
    "threads_write_same": (
        "y[g] = x[lid];",
        "write of buffer(1) `y` byte 0: another thread",
    ),
    "device_race": (f"if (lid == 0) y[g] = x[0]; {TG} if (lid == 1) y[g] += 1.0f;", "data race on device memory"),
    "right_device_sync": (f"if (lid == 0) y[g] = x[0]; {DEVICE} if (lid == 1) y[g] += 1.0f;", ""),
    "right_atomic": ("atomic_fetch_add_explicit(n, lid, memory_order_relaxed);", ""),
    "atomic_and_plain": (
        "atomic_fetch_add_explicit(n, 1u, memory_order_relaxed); if (lid == 5) y[g] = float(*(device uint*)n);",
        "data race on device memory",
    ),
    "misaligned": ("if (lid == 0) { float4 v = *(device const float4*)(x + 1); y[0] = v.x; }", "misaligned"),
    "shift": ("if (lid == 40) y[0] = float(1u << lid);", "shift by more than the type's width (value 40)"),
    "divide": ("if (lid < 4) y[lid] = float(7 / int(lid));", "integer division by zero"),
    "inactive_lane": ("float v = simd_shuffle_xor(x[lid], 16); if (lid == 0) y[0] = v;", "inactive lane"),
    "much_threadgroup": ("threadgroup float a[9000]; a[lid] = x[lid]; if (lid < 4) y[lid] = a[lid];", "32 KiB"),
    "far_away": (
        "if (lid == 0) y[0] = *(device const float*)(size_t(x) ^ (size_t(1) << 44));",
        "far from every buffer",
    ),
}
THREADS = {"divergent_loop": 32, "inactive_lane": 20}
FOUND_WITHOUT_CHECKS = [
    "divergent_simd", "divergent_loop", "different_simd", "early_return", "two_barriers", "inactive_lane",
    "much_threadgroup", "far_away", "divide",
]  # fmt: skip


@pytest.fixture(scope="module")
def zoo():
    text = HEAD + "".join(f"kernel void {name}{SIGNATURE} {{\n{body}\n}}\n" for name, (body, _) in BUGS.items())
    return metalsim.compile(text), metalsim.compile(text, check=False)


def run(library, name, order="forward"):
    x = np.arange(128, dtype=np.float32)
    x.flags.writeable = False
    y, n = np.zeros(4, np.float32), np.zeros(1, np.uint32)
    groups = 4 if name.startswith(("groups", "right")) else 1
    library.run(name, [x, y, n], groups=groups, threads=THREADS.get(name, 128), order=order)
    return y, n


@pytest.mark.parametrize("name", [name for name, (_, expected) in BUGS.items() if expected])
def test_bug_is_found(zoo, name):
    with pytest.raises(metalsim.Fault) as fault:
        run(zoo[0], name)
    assert BUGS[name][1] in str(fault.value)
    assert fault.value.kernel == name
    assert "thread (" in str(fault.value)
    if name == "much_threadgroup":  # belongs to no line
        return
    file, _, line = fault.value.source.partition(":")
    assert file == "kernel.metal"
    before = HEAD + "".join(f"\n{body}\n\n" for body, _ in list(BUGS.values())[: list(BUGS).index(name)])
    first = before.count("\n") + 2
    assert first <= int(line) <= first + BUGS[name][0].count("\n")


@pytest.mark.parametrize("name", [name for name, (_, expected) in BUGS.items() if expected])
@pytest.mark.parametrize("order", ["reverse", "shuffle:1"])
def test_bug_is_found_in_any_order(zoo, name, order):
    with pytest.raises(metalsim.Fault):
        run(zoo[0], name, order)


@pytest.mark.parametrize("name", [name for name, (_, expected) in BUGS.items() if not expected])
def test_right_kernel_passes(zoo, name):
    for library in zoo:
        results = [run(library, name, order) for order in ("forward", "reverse", "shuffle:1", "shuffle:2")]
        assert all(np.array_equal(y, results[0][0]) and np.array_equal(n, results[0][1]) for y, n in results)
        assert results[0][0].any() or results[0][1].any()


@pytest.mark.parametrize("name", FOUND_WITHOUT_CHECKS)
def test_found_without_checks(zoo, name):
    with pytest.raises(metalsim.Fault):
        run(zoo[1], name)


def test_goes_on_after_a_fault(zoo):
    for _ in range(3):
        with pytest.raises(metalsim.Fault):
            run(zoo[0], "far_away")
        run(zoo[0], "right_reduce")


FOLLOW = (
    HEAD
    + """struct Params { int n; int by; };
kernel void follow(device uchar* const device* pages [[buffer(0)]], device float* y [[buffer(1)]],
    constant Params& p [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  if (int(i) >= p.n) return;
  device float* page = (device float*)pages[i / 32];
  y[i] = page[int(i % 32) + p.by];
}
kernel void fill(device uchar* const device* pages [[buffer(0)]], uint i [[thread_position_in_grid]]) {
  ((device float*)pages[i / 32])[i % 32] = float(i);
}
"""
)


@pytest.fixture(scope="module")
def follow():
    return metalsim.compile(FOLLOW)


def test_follows_pointers_into_registered_arrays(follow):
    pages = [np.arange(32, dtype=np.float32) + 100 * k for k in range(3)]
    table = np.array([metalsim.address(page) for page in pages], np.uint64)
    y = np.zeros(80, np.float32)
    record = follow.run("follow", [table, y, struct.pack("2i", 80, 0)], groups=3, record=True)
    assert np.array_equal(y, np.concatenate(pages)[:80])
    assert record.written == [(y.ctypes.data, y.ctypes.data + y.nbytes)]
    read = [(page.ctypes.data, page.ctypes.data + (128 if k < 2 else 64)) for k, page in enumerate(pages)]
    assert set(read) <= set(record.read)
    follow.run("fill", [table], groups=3)
    assert np.array_equal(np.concatenate(pages), np.arange(96))

    for by in (1, -1, 1 << 20):
        with pytest.raises(metalsim.Fault, match="out-of-bounds read"):
            follow.run("follow", [table, y, struct.pack("2i", 80, by)], groups=3)
    pages[1].flags.writeable = False
    assert metalsim.address(pages[1]) == table[1]


def test_memory_that_no_pointer_led_to(follow):
    block = np.zeros(96, np.float32)
    pages = [block[:32], block[32:64], block[64:]]
    table = np.array([metalsim.address(page) for page in pages[:2]], np.uint64)
    y = np.zeros(32, np.float32)
    follow.run("follow", [table, y, struct.pack("2i", 32, 0)])
    with pytest.raises(metalsim.Fault, match="byte offset 128 of memory reached through a pointer"):
        follow.run("follow", [table, y, struct.pack("2i", 32, 32)])


def test_registered_read_only_memory(follow):
    page = np.zeros(32, np.float32)
    page.flags.writeable = False
    table = np.array([metalsim.address(page)], np.uint64)
    with pytest.raises(metalsim.Fault, match="write to read-only memory"):
        follow.run("fill", [table])


def test_registration_ends_with_the_array(follow):
    page = np.zeros(32, np.float32)
    table = np.array([metalsim.address(page)], np.uint64)
    y = np.zeros(32, np.float32)
    follow.run("follow", [table, y, struct.pack("2i", 32, 0)])
    del page
    with pytest.raises(metalsim.Fault):
        follow.run("follow", [table, y, struct.pack("2i", 32, 0)])


def test_bindings_are_checked(follow):
    table, y = np.zeros(1, np.uint64), np.zeros(32, np.float32)
    with pytest.raises(metalsim.Fault, match=r"buffer\(1\) `y` is not bound"):
        follow.run("follow", [table, None, b"12345678"])
    with pytest.raises(metalsim.Fault, match=r"buffer\(2\) `p` needs 8 bytes, got 4"):
        follow.run("follow", [table, y, b"1234"])
    with pytest.raises(metalsim.Fault, match="1 to 1024 threads"):
        follow.run("follow", [table, y, b"12345678"], threads=1056)
    with pytest.raises(ValueError, match="no kernel 'none'"):
        follow.run("none", [])
    with pytest.raises(ValueError, match="not C-contiguous"):
        follow.run("fill", [np.zeros((4, 4))[:, 1]])
    with pytest.raises(ValueError, match="expected order"):
        follow.run("fill", [table], order="backwards")
    with pytest.raises(ValueError, match="C-contiguous"):
        metalsim.address(np.zeros((4, 4))[:, 1])


WRONG = {
    "threadgroup_to_device": "device float* p = a;",
    "threadgroup_argument": "y[0] = helper(a);",
    "write_to_constant": "p.n = 3;",
    "unqualified": "float* q = a;",
    "device_to_thread": "thread float* q = x;",
    "float_to_bfloat": "bfloat b = 1.5f; y[0] = b;",
    "drops_const": "device float* q = x;",
    "few_components": "float4 v = float4(1.0f, 2.0f, 3.0f); y[0] = v.x;",
    "bool_sum": "y[0] = simd_sum(lid == 0);",
    "as_type_size": "half h = as_type<half>(x[0]);",
    "double": "double d = x[0]; y[0] = d;",
    "std": "y[0] = std::sqrt(x[0]);",
    "mixed_max": "y[0] = max(1, 2u);",
    "log1p": "y[0] = log1p(x[0]);",
    "erf": "y[0] = erf(x[0]);",
    "simd_of_long": "y[0] = float(simd_sum(long(lid)));",
    "lambda": "auto f = [&]() { return 1; }; y[0] = f();",
    "goto": "goto end; end: y[0] = 1;",
    "nothing_wrong": "",
}


def typed(body: str, before: str = "") -> str:
    return (
        f"{HEAD}float helper(device const float* p) {{ return p[0]; }}\n{before}"
        "struct Params { int n; float eps; };\n"
        "kernel void k(device const float* x [[buffer(0)]], device float* y [[buffer(1)]],"
        " constant Params& p [[buffer(2)]], uint lid [[thread_index_in_threadgroup]]) {\n"
        f"threadgroup float a[32];\n{body}\ny[0] = x[0] + p.eps;\n}}\n"
    )


@pytest.mark.parametrize("name", WRONG)
def test_typecheck(name):
    if name == "nothing_wrong":
        metalsim.typecheck(typed(""))
        return
    with pytest.raises(metalsim.CompileError, match=r"kernel\.metal:"):
        metalsim.typecheck(typed(WRONG[name]))


def test_threadgroup_variable_outside_of_a_kernel():
    helper = "METAL_FUNC float f() {\nthreadgroup float b[4];\nreturn b[0];\n}\n"
    with pytest.raises(metalsim.CompileError, match=r"kernel\.metal:5: error: a threadgroup variable"):
        metalsim.compile(typed("", helper))


def test_mutants_are_all_found():
    text = (
        HEAD
        + """kernel void sums(device const float* x [[buffer(0)]], device float* y [[buffer(1)]],
    uint lid [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float a[128];
  a[lid] = x[lid];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const float v = a[127 - lid];
  threadgroup_barrier(mem_flags::mem_threadgroup |
                      mem_flags::mem_device);
  a[lid] = v;
  simdgroup_barrier(mem_flags::mem_threadgroup);  // not a threadgroup_barrier(mem_flags::mem_threadgroup);
  y[lid] = a[lid ^ 1];
}
"""
    )
    x = np.arange(128, dtype=np.float32)

    def result(text):
        y = np.zeros(128, np.float32)
        metalsim.compile(text).run("sums", [x, y], threads=128)
        return y

    assert np.array_equal(result(text), x[::-1].reshape(-1, 2)[:, ::-1].ravel())
    mutants = list(metalsim.mutants(text))
    assert [name for name, _ in mutants] == [
        "threadgroup_barrier of line 7 dropped",
        "threadgroup_barrier of line 9 dropped",
        "simdgroup_barrier of line 12 dropped",
    ]
    for _, mutant in mutants:
        assert mutant.count("\n") == text.count("\n")
        with pytest.raises(metalsim.Fault, match=r"data race|uninitialised"):
            result(mutant)


def test_command_line(tmp_path):
    def call(*arguments, text=""):
        command = [sys.executable, "-m", "metalsim", *arguments]
        folder = Path(metalsim.__file__).parents[1]
        return subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True, check=False)

    assert call("typecheck", "-", text=FOLLOW).returncode == 0
    wrong = call("typecheck", "-", text=FOLLOW.replace("float(i)", "x"))
    assert wrong.returncode == 1
    assert "kernel.metal:11:" in wrong.stderr
    (tmp_path / "follow.metal").write_text(FOLLOW)
    built = call("build", "--check", str(tmp_path / "follow.metal"))
    assert metalsim.Library(Path(built.stdout.strip())).names() == ["follow", "fill"]


def test_missing_compiler_says_what_to_install(monkeypatch):
    metalsim.clang.cache_clear()
    monkeypatch.setenv("METALSIM_CLANG", "no-such-clang")
    with pytest.raises(metalsim.ToolError, match="apt-get install clang-19"):
        metalsim.clang()
    monkeypatch.undo()
    metalsim.clang.cache_clear()
