"""The codec's GPU kernels (kernels/codec_*.metal), run by tools/metalsim with its checkers on, against float64."""

import math
import shutil
import struct
import sys
from dataclasses import dataclass
from functools import cache
from itertools import count as numbers
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "metalsim"))
metalsim = pytest.importorskip("metalsim", reason="tools/metalsim is part of a checkout only")
if not any(shutil.which(name) for name in ("clang++-19", "clang++")):
    pytest.skip("metalsim compiles kernels with clang++, which is not installed", allow_module_level=True)

KERNELS = ROOT / "kernels"
TOLERANCE = 2e-4  # of ||y||
FILES = sorted(path.name for path in KERNELS.glob("codec_*.metal"))
_seeds = numbers(1)

Array = np.ndarray[Any, Any]


@cache
def library(name: str) -> Any:
    return metalsim.compile(KERNELS / f"{name}.metal", check=True)


def run(
    kernel: str, file: str, buffers: list[Array | None], params: bytes, groups: tuple[int, int, int], threads: int
) -> None:
    """None stands for a buffer that the kernel leaves alone."""
    bound = [frozen(np.full(1, np.nan, np.float32)) if buffer is None else buffer for buffer in buffers]
    library(file).run(kernel, [*bound, params], groups=groups, threads=threads, order=f"shuffle:{next(_seeds)}")


def frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


@dataclass
class Panels:
    """A weight [outputs, groups, width] as the kernels want it, and what it stands for."""

    values: Array  # int16 [ceil(outputs / 8), groups, ceil(width / 8), 8 outputs, 8 values]
    scales: Array
    exact: Array  # float64 [outputs, groups, width]


def panels(weight: Array) -> Panels:
    outputs, groups, width = weight.shape
    scales = (np.abs(weight).reshape(outputs, -1).max(axis=1) / 32767).astype(np.float32)
    values = np.rint(weight / scales[:, None, None]).astype(np.int16)
    padded = np.zeros((-(-outputs // 8) * 8, groups, -(-width // 8) * 8), np.int16)
    padded[:outputs, :, :width] = values
    arranged = padded.reshape(-1, 8, groups, padded.shape[2] // 8, 8).transpose(0, 2, 3, 1, 4)
    exact = values.astype(np.float64) * scales.astype(np.float64)[:, None, None]
    return Panels(frozen(np.ascontiguousarray(arranged)), frozen(scales), exact)


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def assert_close(got: Array, want: Array) -> None:
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    error = np.linalg.norm(got.astype(np.float64) - want) / max(np.linalg.norm(want), 1e-30)
    assert error < TOLERANCE / 10, f"error {error:.2e}"


@pytest.mark.parametrize("file", FILES)
def test_types(file: str) -> None:
    metalsim.typecheck(KERNELS / file)


# Convolutions.


@dataclass
class Conv:
    """A streaming convolution of some variant with its window, and the same in float64 over the whole past."""

    variant: str
    weight: Array  # [out, taps, in]
    bias: Array | None
    stride: int = 1
    dilation: int = 1
    simdgroups: int = 4
    splits: int = 2

    @property
    def carried(self) -> int:
        return (self.weight.shape[1] - 1) * self.dilation + 1 - self.stride

    def expected(self, signal: Array) -> Array:
        out, taps, channels = self.weight.shape
        exact = self.panels().exact.reshape(out, taps, channels)
        full = np.concatenate([np.zeros((self.carried, channels)), signal.astype(np.float64)])
        outputs = len(signal) // self.stride
        rows = [
            sum(exact[:, tap] @ full[m * self.stride + tap * self.dilation] for tap in range(taps))
            for m in range(outputs)
        ]
        return np.array(rows) + (0 if self.bias is None else self.bias)

    def panels(self) -> Panels:
        out, taps, channels = self.weight.shape
        joined = self.dilation == 1
        return panels(self.weight.reshape(out, 1, taps * channels) if joined else self.weight)

    def run(
        self,
        window: Array,
        residual: Array | None,
        raw: Array | None,
        activated: Array | None,
        first: bool = False,
        replicate: int = 0,
    ) -> None:
        out, taps, channels = self.weight.shape
        packed = self.panels()
        joined = self.dilation == 1
        count = (len(window) - self.carried) // self.stride
        positions, outputs = (int(part[1:]) for part in self.variant.split("_"))
        wanted = (self.bias, residual, raw, activated)
        flags = sum(bit for bit, on in zip((1, 2, 4, 8), wanted, strict=True) if on is not None)
        params = struct.pack(
            "10i", count, out, 1 if joined else taps, taps * channels if joined else channels, self.stride * channels,
            self.dilation * channels, self.splits, flags, replicate, channels,
        )  # fmt: skip
        buffers = [window.reshape(-1), packed.values, packed.scales]
        buffers += [None if x is None else x.reshape(-1) for x in wanted]
        buffers.append(frozen(np.array([first], np.int32)))
        sets = self.simdgroups // self.splits
        groups = (-(-out // (outputs * sets)), -(-count // positions), 1)
        run(f"codec_conv_{self.variant}", "codec_conv", buffers, params, groups, 32 * self.simdgroups)


def carry(windows: list[tuple[Array, int]]) -> None:
    """codec_carry on windows [carried + new, in] that keep `carried` columns."""
    gap = 8
    state = np.full(sum(w.size + gap for w, _ in windows), np.nan, np.float32)
    table, at = [], 0
    for window, carried in windows:
        state[at : at + window.size] = window.reshape(-1)
        table.append([at, carried * window.shape[1], (len(window) - carried) * window.shape[1], 0])
        at += window.size + gap
    params = struct.pack("i", len(windows))
    buffers = [state, frozen(np.array(table, np.uint32))]
    run("codec_carry", "codec_carry", buffers, params, (len(windows), 1, 1), 256)
    for (window, _), (offset, *_rest) in zip(windows, table, strict=True):
        window[...] = state[offset : offset + window.size].reshape(window.shape)


CONVS = [  # variant, out, taps, in, stride, dilation, count, simdgroups, splits
    ("p8_o32", 9, 7, 1, 1, 1, 30, 2, 1),
    ("p8_o32", 40, 3, 20, 1, 1, 11, 4, 2),
    ("p8_o32", 33, 3, 20, 1, 2, 9, 4, 4),
    ("p8_o32", 70, 8, 16, 4, 1, 16, 6, 3),
    ("p8_o32", 12, 3, 60, 1, 1, 9, 1, 1),
    ("p8_o8", 5, 6, 12, 3, 1, 8, 8, 8),
    ("p8_o8", 1, 3, 10, 1, 1, 17, 2, 2),
    ("p8_o8", 26, 3, 9, 1, 3, 3, 8, 4),
    ("p2_o8", 21, 7, 24, 1, 1, 2, 8, 8),
    ("p2_o8", 12, 16, 40, 8, 1, 2, 8, 4),
    ("p2_o8", 9, 7, 90, 1, 1, 2, 2, 1),
    ("p2_o8", 16, 3, 8, 1, 1, 1, 1, 1),
]


@pytest.mark.parametrize("case", CONVS)
def test_conv_streams(case: tuple[Any, ...]) -> None:
    """Three frames through window and carry are one long convolution; every output form in turn."""
    variant, out, taps, channels, stride, dilation, count, simdgroups, splits = case
    rng = np.random.default_rng(out * taps)
    bias = None if out % 2 else normal(rng, out)
    conv = Conv(variant, normal(rng, out, taps, channels), bias, stride, dilation, simdgroups, splits)
    signal = normal(rng, 3 * count * stride, channels)
    residual = normal(rng, 3 * count, out)
    want = conv.expected(signal)
    window = np.zeros((conv.carried + count * stride, channels), np.float32)
    for frame in range(3):
        own = slice(frame * count, (frame + 1) * count)
        window[conv.carried :] = signal[own.start * stride : own.stop * stride]
        raw, activated = (np.full((count, out), np.nan, np.float32) for _ in range(2))
        with_residual = residual[own] if frame != 1 else None
        if frame == 0:
            raw[...] = residual[own]
            with_residual = raw  # in place
        conv.run(window, with_residual, None if frame == 2 else raw, None if frame == 1 else activated)
        frame_want = want[own] + (0 if frame == 1 else residual[own])
        if frame != 2:
            assert_close(raw, frame_want)
        if frame != 1:
            assert_close(activated, elu(frame_want))
        carry([(window, conv.carried)])


@pytest.mark.parametrize(("channels", "out", "stride", "count"), [(7, 5, 3, 5), (33, 16, 5, 2), (8, 6, 4, 9)])
def test_transposed_conv(channels: int, out: int, stride: int, count: int) -> None:
    """y[l][s] = bias + x[l - 1] . w[:, :, stride + s] + x[l] . w[:, :, s]."""
    rng = np.random.default_rng(channels)
    torch = normal(rng, channels, out, 2 * stride)
    bias = normal(rng, out)
    weight = np.zeros((stride, out, 2, channels), np.float32)
    weight[:, :, 0] = torch[:, :, stride:].transpose(2, 1, 0)
    weight[:, :, 1] = torch[:, :, :stride].transpose(2, 1, 0)
    weight = weight.reshape(stride * out, 2, channels)
    conv = Conv("p2_o8" if count <= 2 else "p8_o32", weight, np.tile(bias, stride))
    window = normal(rng, count + 1, channels)
    raw = np.full((count, stride * out), np.nan, np.float32)
    conv.run(window, None, raw, None)
    exact = conv.panels().exact.reshape(stride, out, 2, channels)
    want = np.array([exact[:, :, 0] @ window[i] + exact[:, :, 1] @ window[i + 1] + bias for i in range(count)])
    assert_close(raw, want.reshape(count, -1))


def test_replicated_first_frame() -> None:
    """What is carried counts as copies of the first new column, on the first frame only."""
    rng = np.random.default_rng(3)
    conv = Conv("p2_o8", normal(rng, 24, 4, 10), None, stride=2, simdgroups=8, splits=4)
    window = normal(rng, conv.carried + 2, 10)
    filled = window.copy()
    filled[: conv.carried] = window[conv.carried]
    for first, seen in ((True, filled), (False, window)):
        raw = np.full((1, 24), np.nan, np.float32)
        conv.run(window.copy(), None, raw, None, first=first, replicate=conv.carried)
        exact = conv.panels().exact.reshape(24, -1)
        assert_close(raw, (exact @ seen.astype(np.float64).reshape(-1))[None])


def test_carry() -> None:
    """Many windows at once, overlapping or not; what lies between them stays."""
    rng = np.random.default_rng(5)
    windows = [
        (normal(rng, rows, width), carried) for rows, width, carried in ((8, 70, 6), (30, 3, 2), (9, 40, 7), (5, 5, 0))
    ]
    want = []
    for window, carried in windows:
        moved = window.copy()
        moved[:carried] = window[len(window) - carried :]
        want.append(moved)
    carry(windows)
    for (window, _), moved in zip(windows, want, strict=True):
        np.testing.assert_array_equal(window, moved)


RESIDUALS = [  # positions, channels, hidden, dilation, count, simdgroups
    (8, 16, 8, 1, 19, 4),
    (8, 64, 32, 2, 9, 8),
    (8, 2, 1, 1, 12, 2),
    (4, 72, 36, 1, 6, 16),
    (2, 300, 140, 1, 3, 3),
    (2, 96, 48, 3, 2, 16),
]


@pytest.mark.parametrize("case", RESIDUALS)
def test_residual_block(case: tuple[int, ...]) -> None:
    positions, channels, hidden, dilation, count, simdgroups = case
    rng = np.random.default_rng(channels)
    first, second = normal(rng, hidden, 3, channels, scale=0.2), normal(rng, channels, 1, hidden, scale=0.3)
    w1, w2 = panels(first), panels(second)
    biases = [normal(rng, hidden), normal(rng, channels)] if hidden % 3 else [None, None]
    carried = 2 * dilation
    for wanted in (4, 8, 12):
        window, x = normal(rng, carried + count, channels), normal(rng, count, channels)
        raw, activated = (np.full((count, channels), np.nan, np.float32) for _ in range(2))
        flags = wanted + (0 if biases[0] is None else 3)
        params = struct.pack("6i", count, channels, hidden, 3, dilation, flags)
        want_x = x.astype(np.float64)
        raw = x if wanted == 12 else raw
        outs = [raw if wanted & 4 else None, activated if wanted & 8 else None]
        buffers = [window, x, w1.values, w1.scales, biases[0], w2.values, w2.scales, biases[1], *outs]
        groups = (-(-count // positions), 1, 1)
        run(f"codec_residual_p{positions}", "codec_residual", buffers, params, groups, 32 * simdgroups)
        b1, b2 = (0 if b is None else b for b in biases)
        taps = [window[tap * dilation :][:count].astype(np.float64) @ w1.exact[:, tap].T for tap in range(3)]
        want = want_x + b2 + elu(sum(taps) + b1) @ w2.exact[:, 0].T
        if wanted & 4:
            assert_close(raw, want)
        if wanted & 8:
            assert_close(activated, elu(want))


# Transformers.


def gelu(x: Array) -> Array:
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    x = x.astype(np.float64)
    centered = x - x.mean(axis=1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(axis=1, keepdims=True) + 1e-5) * weight + bias


LINEARS = [  # variant, columns, outputs, inputs, simdgroups, splits, parts
    ("store", 1, 24, 64, 4, 4, 0),
    ("store", 3, 35, 20, 8, 2, 0),
    ("gelu", 2, 70, 33, 6, 2, 0),
    ("add", 2, 66, 530, 8, 8, 3),
    ("add", 1, 9, 700, 2, 1, 0),
    ("norm_store", 2, 24, 96, 4, 2, 0),
    ("norm_gelu", 2, 40, 72, 8, 4, 3),
    ("norm_gelu", 3, 19, 24, 4, 1, 2),
]


@pytest.mark.parametrize("case", LINEARS)
def test_linear(case: tuple[Any, ...]) -> None:
    variant, columns, outputs, inputs, simdgroups, splits, parts = case
    rng = np.random.default_rng(outputs)
    x, norm_weight, norm_bias = normal(rng, columns, inputs, scale=3), normal(rng, inputs), normal(rng, inputs)
    weight = panels(normal(rng, outputs, 1, inputs, scale=inputs**-0.5))
    layer_scale = normal(rng, outputs) if parts else None
    width = outputs if variant == "add" else inputs
    partials = normal(rng, max(parts, 1), columns, width)
    y = normal(rng, columns, outputs)
    before = y.astype(np.float64)
    params = struct.pack("6i", columns, outputs, inputs, splits, parts, layer_scale is not None)
    given = [x, partials if parts else None, norm_weight, norm_bias, weight.values, weight.scales, layer_scale]
    buffers = [None if array is None else frozen(array) for array in given]
    groups = (-(-outputs // (8 * (simdgroups // splits))), -(-columns // 2), 1)
    run(f"codec_linear_{variant}", "codec_linear", [*buffers, y], params, groups, 32 * simdgroups)

    added = partials.astype(np.float64).sum(axis=0) if parts else 0
    seen = layer_norm(x + added, norm_weight, norm_bias) if "norm" in variant else x
    want = seen @ weight.exact[:, 0].T
    if variant == "add":
        want = before + added + want * (1 if layer_scale is None else layer_scale)
    assert_close(y, gelu(want) if "gelu" in variant else want)


def test_gelu_is_close_everywhere() -> None:
    """Within 1e-6 from far left to far right: an identity matrix lets us choose what it sees."""
    x = np.linspace(-9, 9, 8 * 128, dtype=np.float32).reshape(128, 8)
    weight = panels(np.eye(8, dtype=np.float32)[:, None])
    y = np.zeros((128, 8), np.float32)
    params = struct.pack("6i", 128, 8, 8, 1, 0, 0)
    buffers = [frozen(x), None, None, None, weight.values, weight.scales, None, y]
    run("codec_linear_gelu", "codec_linear", buffers, params, (1, 64, 1), 32)
    assert np.abs(y - gelu(x.astype(np.float64))).max() < 1e-6


@dataclass
class Ring:
    """Pages with the keys and values of one layer somewhere in them, and the columns of a pass."""

    heads: int
    head_dim: int
    slots: int
    offset: int  # floats
    past: int  # positions that lie behind the pass, all of them visible
    columns: int

    def __post_init__(self) -> None:
        cells = 2 * self.heads * 32 * self.head_dim
        self.pages = [np.full(self.offset + cells + 4, np.nan, np.float32) for _ in range(self.slots // 32)]
        self.table = frozen(np.array([metalsim.address(page) for page in self.pages], np.uint64))
        self.start = 2**33 + 7  # of the pass: positions need more than 32 bits
        self.at = np.zeros(self.columns, COLUMN)
        for t, column in enumerate(self.at):
            # Columns after the first see two positions less of the past.
            first = self.start - self.past + (2 if t > 0 else 0)
            column["position"], column["first_visible"] = self.start + t, first
            column["slot"] = (self.start + t) % self.slots
        frozen(self.at)

    def row(self, side: int, head: int, position: int) -> Array:
        """A key (side 0) or value (1), writable."""
        slot = position % self.slots
        page = self.pages[slot // 32][self.offset : self.offset + 2 * self.heads * 32 * self.head_dim]
        return page.reshape(2, self.heads, 32, self.head_dim)[side, head, slot % 32]


COLUMN = np.dtype([("position", "<i8"), ("first_visible", "<i8"), ("slot", "<i4"), ("unused", "<i4")])


@pytest.mark.parametrize(("columns", "heads", "head_dim", "splits"), [(2, 2, 16, 2), (1, 3, 12, 1), (3, 1, 6, 4)])
def test_qkv(columns: int, heads: int, head_dim: int, splits: int) -> None:
    rng = np.random.default_rng(heads)
    inputs, width = 40, heads * head_dim
    x, norm_weight, norm_bias = normal(rng, columns, inputs), normal(rng, inputs), normal(rng, inputs)
    weight = panels(normal(rng, 3 * width, 1, inputs))
    angle = rng.uniform(0, 6, (columns, head_dim // 2))
    angles = np.stack([np.cos(angle), np.sin(angle)], axis=2).astype(np.float32)
    ring = Ring(heads, head_dim, slots=64, offset=8, past=0, columns=columns)
    before = [page.copy() for page in ring.pages]
    q = np.full((columns, heads, head_dim), np.nan, np.float32)
    params = struct.pack("5iI", columns, heads, head_dim, inputs, splits, 4 * ring.offset)
    buffers = [
        *map(frozen, (x, norm_weight, norm_bias)),
        weight.values,
        weight.scales,
        frozen(angles),
        ring.at,
        ring.table,
        q,
    ]
    groups = (-(-3 * width // (8 * (4 // splits))), -(-columns // 2), 1)
    run("codec_qkv", "codec_qkv", buffers, params, groups, 128)

    want = (layer_norm(x, norm_weight, norm_bias) @ weight.exact[:, 0].T).reshape(columns, 3, heads, head_dim)
    pairs = want[:, :2].reshape(columns, 2, heads, head_dim // 2, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angle)[:, None, None]
    want[:, :2] = np.stack([turned.real, turned.imag], axis=-1).reshape(columns, 2, heads, head_dim)
    assert_close(q, want[:, 0])
    for t in range(columns):
        for head in range(heads):
            for side in range(2):
                row = ring.row(side, head, ring.start + t)
                assert_close(row, want[t, 1 + side, head])
                row[...] = np.nan
    for page, old in zip(ring.pages, before, strict=True):
        np.testing.assert_array_equal(page, old)  # nothing else was written


ATTENDS = [  # columns, heads, head_dim, slots, past, outputs, slices
    (2, 2, 16, 64, 40, 24, 2),
    (2, 1, 64, 96, 70, 33, 1),
    (1, 3, 12, 32, 0, 20, 3),
    (3, 2, 20, 64, 45, 40, 2),
]


@pytest.mark.parametrize("case", ATTENDS)
def test_attend(case: tuple[int, ...]) -> None:
    columns, heads, head_dim, slots, past, outputs, slices = case
    rng = np.random.default_rng(head_dim)
    ring = Ring(heads, head_dim, slots, offset=4, past=past, columns=columns)
    for position in range(ring.start - past, ring.start + columns):
        for side in range(2):
            for head in range(heads):
                ring.row(side, head, position)[...] = normal(rng, head_dim)
    q = normal(rng, columns, heads, head_dim, scale=2)
    out_proj = panels(normal(rng, outputs, heads, head_dim))
    layer_scale = normal(rng, outputs) if columns != 3 else None
    partials = np.full((heads, columns, outputs), np.nan, np.float32)
    scaled = layer_scale is not None
    params = struct.pack(
        "4iI3if", columns, heads, head_dim, slots, 4 * ring.offset, outputs, slices, scaled, head_dim**-0.5
    )
    buffers = [frozen(q), ring.at, ring.table, out_proj.values, out_proj.scales, layer_scale, partials]
    run("codec_attend", "codec_attend", buffers, params, (heads, slices, -(-columns // 2)), 512)

    want = np.zeros(partials.shape)
    for t, column in enumerate(ring.at):
        seen = range(column["first_visible"], column["position"] + 1)
        for head in range(heads):
            keys, values = (np.array([ring.row(side, head, p) for p in seen], np.float64) for side in range(2))
            scores = keys @ q[t, head] / math.sqrt(head_dim)
            weights = np.exp(scores - scores.max())
            want[head, t] = out_proj.exact[:, head] @ (weights @ values / weights.sum())
    assert_close(partials, want * (layer_scale if scaled else 1))


def test_layer_streams() -> None:
    """20 frames of a whole layer in four dispatches each, past the ring's end, against float64 over the whole past."""
    rng = np.random.default_rng(8)
    heads, head_dim, feed_forward, context, frames = 2, 12, 40, 9, 20
    dim, slots, columns = heads * head_dim, 32, 2
    in_proj, linear1, linear2 = (
        panels(normal(rng, n, 1, k, scale=k**-0.5))
        for n, k in ((3 * dim, dim), (feed_forward, dim), (dim, feed_forward))
    )
    out_proj = panels(normal(rng, dim, heads, head_dim, scale=dim**-0.5))
    norms = [frozen(normal(rng, dim)) for _ in range(4)]
    scales = [frozen(normal(rng, dim, scale=0.3)) for _ in range(2)]
    pages = [np.full(2 * heads * 32 * head_dim, np.nan, np.float32)]
    table = frozen(np.array([metalsim.address(page) for page in pages], np.uint64))
    signal = normal(rng, frames * columns, dim)
    rates = 10000.0 ** (-np.arange(head_dim // 2) * 2 / head_dim)
    keys, values, got, want = [], [], [], []
    for frame in range(frames):
        at = np.zeros(columns, COLUMN)
        at["position"] = positions = 2 * frame + np.arange(columns)
        at["first_visible"], at["slot"] = max(0, 2 * frame + 3 - context), positions % slots
        angle = positions[:, None] * rates
        angles = np.stack([np.cos(angle), np.sin(angle)], axis=2).astype(np.float32)
        x = signal[2 * frame :][:columns].copy()
        before = x.astype(np.float64)
        q = np.full((columns, dim), np.nan, np.float32)
        params = struct.pack("5iI", columns, heads, head_dim, dim, 2, 0)
        buffers = [x, norms[0], norms[1], in_proj.values, in_proj.scales, frozen(angles), frozen(at), table, q]
        run("codec_qkv", "codec_qkv", buffers, params, (9, 1, 1), 64)
        partials = np.full((heads, columns, dim), np.nan, np.float32)
        params = struct.pack("4iI3if", columns, heads, head_dim, slots, 0, dim, 2, 1, head_dim**-0.5)
        buffers = [q, at, table, out_proj.values, out_proj.scales, scales[0], partials]
        run("codec_attend", "codec_attend", buffers, params, (heads, 2, 1), 512)
        inner = np.full((columns, feed_forward), np.nan, np.float32)
        params = struct.pack("6i", columns, feed_forward, dim, 1, heads, 0)
        buffers = [x, partials, norms[2], norms[3], linear1.values, linear1.scales, None, inner]
        run("codec_linear_norm_gelu", "codec_linear", buffers, params, (3, 1, 1), 64)
        params = struct.pack("6i", columns, dim, feed_forward, 2, heads, 1)
        buffers = [inner, partials, None, None, linear2.values, linear2.scales, scales[1], x]
        run("codec_linear_add", "codec_linear", buffers, params, (3, 1, 1), 64)
        got.append(x)

        qkv = (layer_norm(before, *norms[:2]) @ in_proj.exact[:, 0].T).reshape(columns, 3, heads, head_dim)
        turned = (qkv[:, :2, :, ::2] + 1j * qkv[:, :2, :, 1::2]) * np.exp(1j * angle)[:, None, None]
        qkv[:, :2, :, ::2], qkv[:, :2, :, 1::2] = turned.real, turned.imag
        keys.extend(qkv[:, 1])
        values.extend(qkv[:, 2])
        for t, column in enumerate(at):
            seen = slice(column["first_visible"], column["position"] + 1)
            for head in range(heads):
                k, v = (np.array(side[seen])[:, head] for side in (keys, values))
                scores = np.exp(k @ qkv[t, 0, head] / math.sqrt(head_dim))
                before[t] += scales[0] * (out_proj.exact[:, head] @ (scores @ v / scores.sum()))
        hidden = gelu(layer_norm(before, *norms[2:]) @ linear1.exact[:, 0].T)
        want.append(before + scales[1] * (hidden @ linear2.exact[:, 0].T))
    assert_close(np.array(got), np.array(want))


# Between the codec's latent and its codes.


@pytest.mark.parametrize(
    ("levels", "bins", "d", "groups", "simdgroups"),
    [((1, 4), 96, 32, 5, 4), ((2, 2), 60, 6, 60, 1), ((1, 0), 7, 40, 3, 8)],
)
def test_quantize(levels: tuple[int, int], bins: int, d: int, groups: int, simdgroups: int) -> None:
    rng = np.random.default_rng(d)
    codebooks = normal(rng, sum(levels), bins, d)
    codebooks[:, bins // 2 :] = codebooks[:, : bins - bins // 2]  # every codeword but one in the middle is there twice
    residual = np.full((2, 2, d), np.nan, np.float32)
    residual[0] = normal(rng, 2, d)
    want = []
    for part in range(2):
        x = residual[0, part].astype(np.float64)
        for level in range(levels[0]) if part == 0 else range(levels[0], sum(levels)):
            code = int(np.argmin(((x - codebooks[level]) ** 2).sum(axis=1)))
            want.append(code)
            x = x - codebooks[level, code]
    distances = np.full((2, 2, groups), np.nan, np.float32)
    indices = np.full((2, 2, groups), -1, np.int32)
    codes = np.full(sum(levels), -1, np.int32)
    frozen(codebooks)
    for step in range(max(levels) + 1):
        params = struct.pack("6i", step, *levels, bins, d, groups)
        grid = (groups if step < max(levels) else 1, 2, 1)
        buffers = [codebooks, residual, distances, indices, codes]
        run("codec_quantize", "codec_quantize", buffers, params, grid, 32 * simdgroups)
    assert codes.tolist() == want


@pytest.mark.parametrize(("levels", "outputs", "d"), [((1, 3), 45, 32), ((2, 1), 16, 6), ((1, 0), 8, 16)])
def test_dequantize(levels: tuple[int, int], outputs: int, d: int) -> None:
    rng = np.random.default_rng(outputs)
    codebooks, codes = normal(rng, sum(levels), 20, d), rng.integers(0, 20, sum(levels)).astype(np.int32)
    parts = [panels(normal(rng, outputs, 1, d)) for _ in range(2)]
    values, scales = (np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "scales"))
    y = np.full((1, outputs), np.nan, np.float32)
    drawn = rng.integers(0, 20, 3).astype(np.int32)
    given = np.where(np.arange(len(codes)) % 3 == 1, -2, codes).astype(np.int32)
    codes[given < 0] = drawn[1]
    params = struct.pack("6i", outputs, d, 20, *levels, len(drawn))
    buffers = [*map(frozen, (codebooks, given, drawn, values, scales)), y]
    run("codec_dequantize", "codec_dequantize", buffers, params, (-(-outputs // 16), 1, 1), 64)
    words = codebooks[np.arange(sum(levels)), codes].astype(np.float64)
    sums = [words[: levels[0]].sum(axis=0), words[levels[0] :].sum(axis=0)]
    assert_close(y, sum(part.exact[:, 0] @ x for part, x in zip(parts, sums, strict=True))[None])


@pytest.mark.parametrize(("channels", "stride", "count", "biased"), [(40, 2, 1, False), (7, 3, 4, True)])
def test_upsample_streams(channels: int, stride: int, count: int, biased: bool) -> None:
    rng = np.random.default_rng(channels)
    taps, bias = frozen(normal(rng, 2 * stride, channels)), normal(rng, channels)
    window = np.zeros((1 + count, channels), np.float32)
    signal = normal(rng, 3 * count, channels)
    got = []
    for frame in range(3):
        window[1:] = signal[frame * count :][:count]
        y = np.full((count * stride, channels), np.nan, np.float32)
        params = struct.pack("4i", count, channels, stride, biased)
        buffers = [window, taps, bias if biased else None, y]
        run("codec_upsample", "codec_upsample", buffers, params, (2, 1, 1), 32)
        got.append(y)
    before = np.concatenate([np.zeros((1, channels)), signal[:-1]])
    want = signal[:, None] * taps[:stride].astype(np.float64) + before[:, None] * taps[stride:]
    assert_close(np.concatenate(got), want.reshape(-1, channels) + (bias if biased else 0))
