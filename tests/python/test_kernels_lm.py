"""The language model's GPU kernels (kernels/lm_*.metal), run by tools/metalsim and its checkers, against float64."""

import functools
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "metalsim"))
metalsim = pytest.importorskip("metalsim", reason="tools/metalsim is part of a checkout only")
if not any(shutil.which(name) for name in ("clang++-19", "clang++")):
    pytest.skip("metalsim compiles kernels with clang++, which is not installed", allow_module_level=True)

from lm_data import (  # noqa: E402
    Array,
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

ORDERS = ["forward", "shuffle:1", "shuffle:2"]
INF, NAN = np.float32(np.inf), np.float32(np.nan)


@functools.cache
def library(name: str) -> Any:
    return metalsim.compile(ROOT / "kernels" / f"{name}.metal")


ROWS = {"r1_c1": 1, "r2_c1": 2, "r4_c1": 4, "c8": 4}


def grid(n: int, columns: int, tile: str, simdgroups: int, split: int, passes: int = 1) -> tuple[int, int, int]:
    rows = simdgroups // split * ROWS[tile] * passes
    return (-(-n // rows), -(-columns // 8) if tile == "c8" else columns, 1)


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "kernels").glob("lm_*.metal")))
def test_metal_would_accept(name: str) -> None:
    metalsim.typecheck(ROOT / "kernels" / f"{name}.metal")


# lm_product: y = W norm(x)

PROJECT = [
    # format, group, n, k, columns, tile, simdgroups, split, passes
    ("b4_bf16", 64, 37, 1024, 1, "r1_c1", 2, 1, 1),
    ("b4_bf16", 64, 50, 2816, 1, "r2_c1", 4, 4, 3),
    ("b4_bf16", 64, 40, 4096 + 1088, 1, "r4_c1", 4, 2, 2),
    ("b4_bf16", 32, 33, 96, 3, "r2_c1", 2, 1, 1),
    ("b4_f16", 32, 21, 608, 1, "r4_c1", 3, 3, 2),
    ("b4_bf16", 64, 22, 1088, 19, "c8", 3, 1, 2),
    ("b4_f16", 64, 16, 64, 8, "c8", 2, 1, 1),
    ("b8_bf16", 64, 19, 704, 1, "r2_c1", 4, 2, 3),
    ("b8_bf16", 64, 12, 4096 + 64, 1, "r4_c1", 2, 1, 1),
    ("b8_f16", 32, 18, 1056, 3, "c8", 2, 1, 1),
    ("b8_f16", 32, 10, 160, 2, "r1_c1", 2, 2, 1),
    ("bf16", 64, 23, 520, 1, "r4_c1", 4, 4, 2),
    ("bf16", 64, 11, 4104, 1, "r1_c1", 4, 2, 1),
    ("bf16", 64, 14, 200, 8, "c8", 2, 1, 1),
    ("bf16", 64, 12, 68, 1, "r2_c1", 2, 1, 1),
    ("bf16", 64, 9, 4096 + 67, 1, "r4_c1", 2, 2, 2),
    ("bf16", 64, 10, 101, 5, "c8", 2, 1, 1),
]


@pytest.mark.parametrize("epilogue", ["store", "add", "swiglu"])
@pytest.mark.parametrize("case", PROJECT, ids=lambda c: "-".join(map(str, c)))
def test_project(case: tuple, epilogue: str) -> None:
    name, group, n, k, columns, tile, simdgroups, split, passes = case
    rng = np.random.default_rng(n + k)
    n += n % 2 if epilogue == "swiglu" else 0
    with_norm = epilogue != "add"
    w = make_matrix(rng, name, n, k, group)
    x, weight = floats(rng, columns, k, size=3.0), floats(rng, k)
    before = floats(rng, columns, n // 2 if epilogue == "swiglu" else n)
    product = (rms_norm(x, weight) if with_norm else x.astype(np.float64)) @ w.value.T
    expected = product_results(epilogue, product, before)
    kind = ["store", "add", "swiglu"].index(epilogue)
    if epilogue == "swiglu" and simdgroups // split * ROWS[tile] % 2 == 1:
        simdgroups *= 2
    params = struct.pack("8i", n, k, columns, w.group_shift, split, passes, kind, int(with_norm))
    results = []
    for order in ORDERS[: 3 if epilogue == "add" else 1]:
        y = before.copy()
        library("lm_product").run(
            f"qmv_{name}_{tile}",
            [fixed(x), fixed(weight), *w.buffers, y, params],
            groups=grid(n, columns, tile, simdgroups, split, passes),
            threads=32 * simdgroups,
            order=order,
        )
        close(y, expected, 3e-4)
        results.append(y)
    assert all((y == results[0]).all() for y in results)


QKV = [
    # format, kv bits, heads, head_dim, k, columns, tile, simdgroups, split, rotary, passes
    ("b4_bf16", 16, 2, 64, 320, 1, "r4_c1", 4, 1, True, 2),
    ("b4_bf16", 8, 2, 64, 192, 1, "r4_c1", 16, 1, True, 1),
    ("b8_bf16", 8, 1, 128, 128, 2, "r4_c1", 8, 1, True, 4),
    ("b4_f16", 32, 3, 24, 64, 3, "r2_c1", 4, 2, True, 2),
    ("bf16", 16, 2, 16, 72, 1, "r4_c1", 2, 1, False, 3),
    ("b4_bf16", 16, 2, 32, 128, 19, "c8", 2, 1, True, 2),
    ("b8_f16", 8, 2, 16, 64, 8, "c8", 8, 1, False, 2),
    ("b4_bf16", 8, 4, 16, 64, 1, "r4_c1", 8, 2, True, 3),
]


@pytest.mark.parametrize("case", QKV, ids=lambda c: "-".join(map(str, c)))
def test_project_qkv(case: tuple) -> None:
    name, bits, heads, head_dim, k, columns, tile, simdgroups, split, rotary, passes = case
    rng = np.random.default_rng(k)
    n = 3 * heads * head_dim
    w = make_matrix(rng, name, n, k, 64)
    x, weight = floats(rng, columns, k), floats(rng, k)
    angle = rng.uniform(-np.pi, np.pi, (columns, head_dim // 2))
    angles = np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)
    slots = 64
    start = 58 + 64 * 1000  # wraps after 6 columns
    at = columns_of([(start + t, 0) for t in range(columns)], slots)
    expected = qkv_results(rms_norm(x, weight) @ w.value.T, heads, angle if rotary else None)
    for order in ORDERS[:2]:
        ring = Ring(rng, bits, heads, head_dim, slots, metalsim.address)
        filled = [(start + t) % slots for t in range(columns)]
        before = ring.without(filled)
        q = np.zeros((columns, heads, head_dim), np.float32)
        params = struct.pack(
            "11iI", n, k, columns, w.group_shift, split, passes, 1, heads, head_dim, int(rotary), bits, ring.offset
        )
        library("lm_product").run(
            f"qkv_{name}_{tile}",
            [fixed(x), fixed(weight), *w.buffers, fixed(angles), at, fixed(ring.table), q, params],
            groups=grid(n, columns, tile, simdgroups, split, passes),
            threads=32 * simdgroups,
            order=order,
        )
        close(q, expected[:, 0], 3e-4)
        tolerance = {32: 3e-4, 16: 3e-3, 8: 1e-2}[bits]
        for t, slot in enumerate(filled):
            for part in range(2):
                for head in range(heads):
                    close(ring.read(slot, part, head), expected[t, 1 + part, head], tolerance)
                    if bits == 8:
                        assert np.abs(ring.row(slot, part, head)[0].view(np.int8)).max() == 127
        assert all((a == b).all() for a, b in zip(ring.without(filled), before, strict=True))


ATTEND = [
    # cells, heads, head_dim, slots, visible (position, first), splits, simdgroups
    ("bf16", 2, 128, 96, [window(7 * 96 + 20, 90)], 3, 2),
    ("bf16", 1, 64, 160, [window(p, 129) for p in (150, 151, 161)], 2, 3),
    ("bf16", 2, 64, 32, [window(0, 16)], 1, 1),
    ("bf16", 2, 24, 64, [window(70, 40), window(71, 40)], 2, 2),
    ("int8", 2, 128, 64, [window(64 * 99 + 3, 64)], 4, 1),
    ("int8", 3, 64, 64, [window(20, 64)], 2, 2),
    ("int8", 1, 6, 32, [window(40, 11)], 1, 2),
    ("f32", 1, 128, 64, [window(64 + 9, 33)], 1, 2),
    ("f32", 2, 64, 64, [window((1 << 40) - 5, 60)], 8, 1),
    ("f32", 1, 512, 32, [window(50, 9)], 2, 1),
]


@pytest.mark.parametrize("case", ATTEND, ids=lambda c: "-".join(map(str, c[:4])))
def test_attend(case: tuple) -> None:
    cells, heads, head_dim, slots, visible, splits, simdgroups = case
    rng = np.random.default_rng(head_dim + slots)
    bits = {"bf16": 16, "int8": 8, "f32": 32}[cells]
    ring = Ring(rng, bits, heads, head_dim, slots, metalsim.address)
    q = floats(rng, len(visible), heads, head_dim, size=4.0)
    expected = np.stack([ring.attention(q[t], *visible[t]) for t in range(len(visible))])
    at = columns_of(visible, slots)
    params = struct.pack("4iI", heads, head_dim, slots, splits, ring.offset)
    name = f"attend_{cells}_d{head_dim if head_dim in (64, 128) else 0}"
    for order in ORDERS:
        partial = np.full((len(visible), heads, splits, head_dim + 2), np.nan, np.float32)
        out = np.full((len(visible), heads, head_dim), np.nan, np.float32)
        library("lm_attend").run(
            name,
            [fixed(q), at, fixed(ring.table), partial, out, params],
            groups=(splits, heads, len(visible)),
            threads=32 * simdgroups,
            order=order,
        )
        if splits > 1:
            assert np.isnan(out).all()
            library("lm_attend").run(
                "attend_combine", [fixed(partial.copy()), out, params], groups=(heads, len(visible), 1), threads=64
            )
        close(out, expected, 1e-5)


def test_attend_extreme_scores() -> None:
    """One position whose score is far above all others, wherever it is."""
    rng = np.random.default_rng(1)
    ring = Ring(rng, 16, 1, 64, 64, metalsim.address)
    q = np.ones((1, 1, 64), np.float32)
    for loudest in (0, 31, 49):
        ring.write(loudest, 0, 0, np.full(64, 1000.0, np.float32))
        out = np.zeros((1, 1, 64), np.float32)
        library("lm_attend").run(
            "attend_bf16_d64",
            [fixed(q), columns_of([(49, 0)], 64), fixed(ring.table), np.zeros(1, np.float32), out,
             struct.pack("4iI", 1, 64, 64, 1, ring.offset)],
            groups=(1, 1, 1),
            threads=64,
        )  # fmt: skip
        close(out, ring.read(loudest, 1, 0), 1e-6)
        ring.write(loudest, 0, 0, np.full(64, -1000.0, np.float32))


@pytest.mark.parametrize(
    ("name", "tile", "heads", "head_dim", "n", "position", "simdgroups", "split"),
    [
        ("b4_bf16", "r1_c1", 4, 16, 30, 0, 2, 1),
        ("b4_bf16", "r2_c1", 5, 64, 37, 15, 4, 2),
        ("b4_bf16", "r1_c1", 2, 96, 5, 77, 3, 1),
        ("b8_f16", "r2_c1", 3, 128, 12, 40, 2, 2),
        ("bf16", "r2_c1", 3, 8, 20, 9, 4, 1),
    ],
)
def test_attend_project(
    name: str, tile: str, heads: int, head_dim: int, n: int, position: int, simdgroups: int, split: int
) -> None:
    rng = np.random.default_rng(n)
    ring = Ring(rng, 16, heads, head_dim, 64, metalsim.address)
    w = make_matrix(rng, name, n, heads * head_dim, 32 if head_dim == 128 else 64)
    q, before = floats(rng, heads, head_dim, size=3.0), floats(rng, n)
    visible = window(position, 32 if position > 64 else 16)
    expected = before + w.value @ ring.attention(q, *visible).reshape(-1)
    params = struct.pack(
        "7iI", n, heads * head_dim, w.group_shift, split, heads, head_dim, ring.slots, ring.offset
    )  # fmt: skip
    for order in ORDERS:
        y = before.copy()
        library("lm_product").run(
            f"attend_project_{name}_{tile}",
            [fixed(q), columns_of([visible], ring.slots), fixed(ring.table), *w.buffers, y, params],
            groups=grid(n, 1, tile, simdgroups, split),
            threads=32 * simdgroups,
            order=order,
        )
        close(y, expected, 3e-4)


# lm_norm, lm_embed


@pytest.mark.parametrize(("columns", "dim", "threads"), [(1, 1024, 1024), (3, 100, 64), (2, 4097, 256)])
@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("size", [1.0, 1e-6, 1e6])
def test_norm(kind: str, columns: int, dim: int, threads: int, size: float) -> None:
    rng = np.random.default_rng(dim)
    x = (floats(rng, columns, dim) + 0.5) * np.float32(size)
    weight, bias = floats(rng, dim), floats(rng, dim)
    wide = x.astype(np.float64)
    if kind == "rms":
        expected = rms_norm(x, weight)
    else:
        centred = wide - wide.mean(-1, keepdims=True)
        expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
    for order in ORDERS:
        y = x.copy()
        library("lm_norm").run(
            f"norm_{kind}",
            [y, fixed(weight), fixed(bias), y, struct.pack("i", dim)],
            groups=(columns, 1, 1),
            threads=threads,
            order=order,
        )
        close(y, expected, 1e-5)


@pytest.mark.parametrize(
    ("formats", "group", "dim", "columns", "simdgroups"),
    [
        (["b4_bf16"], 64, 320, 1, 1),
        (["b8_f16", "bf16", "b4_f16", "b8_bf16"], 32, 96, 3, 3),
        (["b4_bf16"] * 16 + ["bf16"], 64, 576, 2, 17),
    ],
)
def test_embed_sum(formats: list[str], group: int, dim: int, columns: int, simdgroups: int) -> None:
    rng = np.random.default_rng(dim)
    rows = 11
    tables = [make_matrix(rng, name, rows, dim, group) for name in formats]
    ids = rng.integers(-1, rows, (len(tables), 32)).astype(np.int32)
    ids[0, 0] = rows - 1
    described = b"".join(
        struct.pack(
            "3Q4i",
            *(metalsim.address(b) for b in table.buffers),
            {"b4": 4, "b8": 8, "bf": 16}[name[:2]],
            table.group_shift,
            int(name.endswith("_f16")),
            0,
        )
        for name, table in zip(formats, tables, strict=True)
    )
    expected = np.zeros((columns, dim))
    for table, row in zip(tables, ids, strict=True):
        for t in range(columns):
            expected[t] += table.value[row[t]] if row[t] >= 0 else 0
    for order in ORDERS:
        x = np.full((columns, dim), np.nan, np.float32)
        library("lm_embed").run(
            "embed_sum",
            [described, fixed(ids), x, struct.pack("2i", dim, len(tables))],
            groups=(-(-dim // 256), columns, 1),
            threads=32 * simdgroups,
            order=order,
        )
        close(x, expected, 1e-6)


# select


@pytest.mark.parametrize(("n", "count", "threads"), [(1, 1, 32), (136, 8, 64), (1920, 0, 256)])
def test_select(n: int, count: int, threads: int) -> None:
    rng = np.random.default_rng(n)
    given, made = (rng.integers(0, 2**32, size, dtype=np.uint32) for size in (n, count))
    which = np.where(rng.random(n) < 0.5, -1, rng.integers(0, max(count, 1), n)).astype(np.int32)
    expected = np.where(which < 0, given, made[which]) if count else given
    for order in ORDERS:
        out = np.zeros(n, np.uint32)
        library("lm_select").run(
            "select_words",
            [fixed(given), *([which, made] if count else [given, given]), out, struct.pack("2i", n, int(count > 0))],
            groups=(-(-n // threads), 1, 1),
            threads=threads,
            order=order,
        )
        assert np.array_equal(out, expected)


# lm_sample


def philox(counter: Array, key: tuple[int, int]) -> Array:
    """uint64 [4, n] -> the same, by Salmon et al."""
    c, low = counter.astype(np.uint64), np.uint64(0xFFFFFFFF)
    k0, k1 = key
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = np.stack(
            [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), b & low, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), a & low]
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def exponential_noise(seed: int, frame: int, stream: int, n: int) -> Array:
    blocks = np.arange(-(-n // 4), dtype=np.uint64)
    same = [np.full_like(blocks, v) for v in (stream, frame & 0xFFFFFFFF, frame >> 32)]
    words = philox(np.stack([blocks, *same]), (seed & 0xFFFFFFFF, seed >> 32)).T.reshape(-1)[:n]
    return -np.log(((words >> np.uint64(8)).astype(np.float64) + 0.5) / 2**24)


def drawn(logits: Array, temperature: float, top_k: int, seed: int, frame: int, stream: int) -> int:
    """What csrc/cpu/sampling.cpp draws, in float64."""
    if np.isnan(logits).all():
        return 0
    order = np.where(np.isnan(logits), -np.inf, logits)
    real = np.flatnonzero(~np.isnan(logits))
    largest = int(real[np.argmax(logits[real])])
    if not temperature > 0:
        return largest
    taken = ~np.isnan(logits)
    if 0 < top_k < len(logits):
        threshold = np.sort(order)[::-1][top_k - 1]
        places = top_k - int((logits > threshold).sum())
        ties = np.flatnonzero(logits == threshold)
        taken = logits > threshold
        taken[ties[:places]] = True
    with np.errstate(invalid="ignore"):
        p = np.exp((logits.astype(np.float64) - float(logits[largest])) / temperature)
    race = np.where(taken & ~np.isnan(p), p / exponential_noise(seed, frame, stream, len(logits)), -1.0)
    return int(np.argmax(race)) if race.max() >= 0 else largest


def run_sample(
    logits: Array,
    temperature: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    frame: int = 0,
    stream: int = 0,
    target: int = -7,
    forced: int = 0,
    order: str = "forward",
) -> int:
    token = np.full(1, -1, np.int32)
    draw = struct.pack("f3i2Q", temperature, top_k, target, forced, seed, frame)
    library("lm_sample").run(
        "sample", [fixed(logits), draw, token, struct.pack("2i", len(logits), stream)], threads=1024, order=order
    )
    return int(token[0])


def test_sample_forced_and_greedy() -> None:
    logits = floats(np.random.default_rng(1), 300)
    assert run_sample(logits, forced=1, target=123) == 123
    assert run_sample(logits, temperature=0.0) == logits.argmax()
    assert run_sample(logits, temperature=-1.0, top_k=5) == logits.argmax()
    assert run_sample(logits, temperature=float("nan")) == logits.argmax()


@pytest.mark.parametrize("n", [1, 3, 260, 2048, 32000])
def test_sample_draws_what_the_cpu_draws(n: int) -> None:
    rng = np.random.default_rng(n)
    for i in range(3 if n > 10000 else 12):
        logits = floats(rng, n, size=3.0)
        if i % 3 == 1:
            logits = np.round(logits)  # many ties
        draw = {
            "temperature": float(np.float32(rng.choice([0.3, 0.8, 1.0, 5.0]))),
            "top_k": int(rng.choice([0, 1, 2, 25, 250, n])),
            "seed": int(rng.integers(1 << 63)) * 2 + 1,
            "frame": int(rng.integers(1 << 40)),
            "stream": i,
        }
        assert run_sample(logits, **draw, order=ORDERS[i % 3]) == drawn(logits, **draw), draw


def test_sample_takes_the_first_of_those_that_tie() -> None:
    logits = np.zeros(5000, np.float32)
    logits[[17, 4000]] = 1.0
    for seed in range(6):
        draw = {"temperature": 1e6, "top_k": 30, "seed": seed, "frame": 3, "stream": 2}
        token = run_sample(logits, **draw)
        assert token == drawn(logits, **draw)
        assert token < 28 or token in (17, 4000)
    signs = np.where(np.arange(64) % 2 == 0, np.float32(-0.0), np.float32(0.0))
    assert run_sample(signs, temperature=0.0) == 0


@pytest.mark.parametrize(
    "special",
    [
        {0: NAN, 5: -INF},
        {1: INF, 700: INF},
        {0: INF, 1: INF, 2: -INF},
        dict.fromkeys(range(999), NAN),
        dict.fromkeys(range(1000), NAN),
        dict.fromkeys(range(1000), -INF),
        dict.fromkeys(range(990), -INF) | {991: NAN},
        {10: np.float32(3e38), 20: np.float32(-3e38)},
        {i: np.float32(1e-42 * i) for i in range(1000)},
    ],
    ids=range(9),
)
def test_sample_of_special_values(special: dict[int, np.float32]) -> None:
    logits = floats(np.random.default_rng(0), 1000)
    for index, value in special.items():
        logits[index] = value
    for temperature in (0.0, 0.7, 1e-30, 1e30):
        for top_k in (0, 1, 40, 995):
            draw = {"temperature": temperature, "top_k": top_k, "seed": 5, "frame": 1, "stream": 1}
            assert run_sample(logits, **draw) == drawn(logits, **draw), draw


def test_noise_is_accurate_over_its_whole_range() -> None:
    """Two logits, told apart only by their noise: the ratio at which the token changes is that of the noise."""
    for seed in range(40):
        noise = exponential_noise(seed, 0, 0, 2)
        even = np.log(noise[1] / noise[0])  # the logit of token 1 that makes both equal
        for side in (-1, 1):
            logits = np.array([0.0, even + side * 4e-6], np.float32)
            assert run_sample(logits, seed=seed) == (side == 1)
