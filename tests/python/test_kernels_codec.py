"""The codec's GPU kernels (kernels/codec_*.metal), run by tools/metalsim with all of its checkers on, against float64."""

import shutil
import struct
import sys
from collections.abc import Callable
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
    kernel: str, file: str, buffers: list[Array], params: bytes, groups: tuple[int, int, int], threads: int
) -> None:
    library(file).run(kernel, [*buffers, params], groups=groups, threads=threads, order=f"shuffle:{next(_seeds)}")


def frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


NOTHING = frozen(np.zeros(4, np.float32))


def nothing() -> Array:
    """For a buffer that the flags say is not there."""
    return frozen(np.zeros(4, np.float32))


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
        flags = sum(bit for bit, on in zip((1, 2, 4, 8), (self.bias, residual, raw, activated)) if on is not None)
        params = struct.pack(
            "10i", count, out, 1 if joined else taps, taps * channels if joined else channels, self.stride * channels,
            self.dilation * channels, self.splits, flags, replicate, channels,
        )  # fmt: skip
        buffers = [window.reshape(-1), packed.values, packed.scales]
        buffers += [nothing() if x is None else x.reshape(-1) for x in (self.bias, residual, raw, activated)]
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
    for (window, _), (offset, *_rest) in zip(windows, table):
        window[...] = state[offset : offset + window.size].reshape(window.shape)


CONVS = [  # variant, out, taps, in, stride, dilation, count, simdgroups, splits
    ("p8_o32", 9, 7, 1, 1, 1, 30, 2, 1),
    ("p8_o32", 40, 3, 20, 1, 1, 11, 4, 2),
    ("p8_o32", 33, 3, 20, 1, 2, 9, 4, 4),
    ("p8_o32", 70, 8, 16, 4, 1, 16, 6, 3),
    ("p8_o8", 5, 6, 12, 3, 1, 8, 8, 8),
    ("p8_o8", 1, 3, 10, 1, 1, 17, 2, 2),
    ("p8_o8", 26, 3, 9, 1, 3, 3, 8, 4),
    ("p2_o8", 21, 7, 24, 1, 1, 2, 8, 8),
    ("p2_o8", 12, 16, 40, 8, 1, 2, 8, 4),
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
        with_residual = residual[own].copy() if frame != 1 else None
        conv.run(window.copy(), with_residual, None if frame == 2 else raw, None if frame == 1 else activated)
        frame_want = want[own] + (0 if frame == 1 else residual[own])
        if frame != 2:
            assert_close(raw, frame_want)
        if frame != 1:
            assert_close(activated, elu(frame_want))
        carry([(window, conv.carried)])


@pytest.mark.parametrize("channels, out, stride, count", [(7, 5, 3, 5), (33, 16, 5, 2), (8, 6, 4, 9)])
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
    for (window, _), moved in zip(windows, want):
        np.testing.assert_array_equal(window, moved)


RESIDUALS = [  # positions, channels, hidden, dilation, count, simdgroups
    (8, 16, 8, 1, 19, 4),
    (8, 64, 32, 2, 9, 8),
    (8, 2, 1, 1, 12, 2),
    (4, 72, 36, 1, 6, 16),
    (2, 300, 140, 1, 3, 3),
    (2, 96, 48, 3, 2, 32),
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
        b1, b2 = (nothing() if b is None else b for b in biases)
        outs = [raw if wanted & 4 else nothing(), activated if wanted & 8 else nothing()]
        buffers = [window.copy(), x.copy(), w1.values, w1.scales, b1, w2.values, w2.scales, b2, *outs]
        groups = (-(-count // positions), 1, 1)
        run(f"codec_residual_p{positions}", "codec_residual", buffers, params, groups, 32 * simdgroups)
        b1, b2 = (0 if b is None else b for b in biases)
        taps = [window[tap * dilation :][:count].astype(np.float64) @ w1.exact[:, tap].T for tap in range(3)]
        want = x + b2 + elu(sum(taps) + b1) @ w2.exact[:, 0].T
        if wanted & 4:
            assert_close(raw, want)
        if wanted & 8:
            assert_close(activated, elu(want))
