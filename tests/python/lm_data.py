"""What the language model's GPU kernels are tested with: weights, rings and columns, and what they mean in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
PAGE = 32  # slots of a ring's page


def fixed(array: Array) -> Array:
    """A buffer that a kernel may not write to."""
    array.setflags(write=False)
    return array


def floats(rng: np.random.Generator, *shape: int, size: float = 1.0) -> Array:
    return (size * rng.standard_normal(shape)).astype(np.float32)


def to_bf16(x: Array) -> Array:
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


@dataclass
class Matrix:
    """Random weights as a checkpoint holds them, and what they mean."""

    buffers: list[Array]  # words, scales, biases
    value: Array  # float64 [n, k]
    group_shift: int


def make_matrix(rng: np.random.Generator, name: str, n: int, k: int, group: int = 64) -> Matrix:
    if name == "bf16":
        bits = to_bf16(floats(rng, n, k))
        nothing = np.zeros(8, np.uint16)
        padded = np.pad(bits, ((0, 0), (0, -k % 8)))
        return Matrix([fixed(padded), fixed(nothing), fixed(nothing)], from_bf16(bits).astype(np.float64), 6)
    bits = int(name[1])
    q = rng.integers(0, 1 << bits, (n, k))
    per_word = 32 // bits
    words = np.zeros((n, k // per_word), np.uint32)
    for i in range(per_word):
        words |= q[:, i::per_word].astype(np.uint32) << np.uint32(bits * i)
    parts = [floats(rng, n, k // group, size=s) for s in (2.0 / (1 << bits), 1.0)]
    if name.endswith("bf16"):
        stored = [to_bf16(p) for p in parts]
        scales, biases = (from_bf16(p).astype(np.float64) for p in stored)
    else:
        halves = [p.astype(np.float16) for p in parts]
        stored = [p.view(np.uint16) for p in halves]
        scales, biases = (p.astype(np.float64) for p in halves)
    value = q * np.repeat(scales, group, 1) + np.repeat(biases, group, 1)
    return Matrix([fixed(words), *(fixed(p) for p in stored)], value, group.bit_length() - 1)


def close(got: Array, expected: Array, tolerance: float) -> None:
    assert np.isfinite(got).all()
    error = np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30)
    assert error < tolerance, f"relative error {error:.2e}"


def rms_norm(x: Array, weight: Array) -> Array:
    x = x.astype(np.float64)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-8) * weight


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def product_results(epilogue: str, product: Array, before: Array) -> Array:
    """What a product becomes where y is `before`."""
    half = product.shape[-1] // 2
    if epilogue == "swiglu":
        return silu(product[:, :half]) * product[:, half:]
    return before + product if epilogue == "add" else product


def qkv_results(product: Array, heads: int, angle: Array | None) -> Array:
    """[columns, 3, heads, head_dim], keys and queries turned by `angle` [columns, head_dim / 2]."""
    out = product.reshape(len(product), 3, heads, -1)
    if angle is None:
        return out
    even, odd = out[:, :2, :, 0::2].copy(), out[:, :2, :, 1::2].copy()
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    out[:, :2, :, 0::2] = even * cos - odd * sin
    out[:, :2, :, 1::2] = even * sin + odd * cos
    return out


class Ring:
    """Pages of a ring with other layers' bytes before and after this one's, and tables of their addresses."""

    def __init__(
        self,
        rng: np.random.Generator,
        bits: int,
        heads: int,
        head_dim: int,
        slots: int,
        address: Callable[[Array], int],
    ) -> None:
        self.bits, self.heads, self.head_dim, self.slots = bits, heads, head_dim, slots
        self.side = heads * PAGE * head_dim * bits // 8
        self.offset = 64
        self.bytes = 2 * self.side + (2 * heads * PAGE * 4 if bits == 8 else 0)
        self.pages = [rng.integers(0, 256, self.offset + self.bytes + 32, np.uint8) for _ in range(slots // PAGE)]
        self.table = np.array([address(page) for page in self.pages], np.uint64)
        for slot in range(slots):
            for part in range(2):
                for head in range(heads):
                    self.write(slot, part, head, floats(rng, head_dim))

    def write(self, slot: int, part: int, head: int, x: Array) -> None:
        row, scale = self.row(slot, part, head)
        if self.bits == 32:
            row.view(np.float32)[:] = x
        elif self.bits == 16:
            row.view(np.uint16)[:] = to_bf16(x)
        else:
            largest = np.abs(x).max()
            scale[0] = largest / np.float32(127)
            row.view(np.int8)[:] = np.rint(x * (np.float32(127) / largest)) if largest > 0 else 0

    def places(self, slot: int, part: int, head: int) -> tuple[slice, slice]:
        """Where in its page a row lies, and its scale."""
        width = self.head_dim * self.bits // 8
        cells = self.offset + part * self.side + (head * PAGE + slot % PAGE) * width
        scale = self.offset + 2 * self.side + ((part * self.heads + head) * PAGE + slot % PAGE) * 4
        return slice(cells, cells + width), slice(scale, scale + 4 if self.bits == 8 else scale)

    def row(self, slot: int, part: int, head: int) -> tuple[Array, Array]:
        cells, scale = self.places(slot, part, head)
        page = self.pages[slot // PAGE]
        return page[cells], page[scale].view(np.float32)

    def without(self, slots: list[int]) -> list[Array]:
        """Copies of the pages with these slots zeroed."""
        pages = [page.copy() for page in self.pages]
        for slot in slots:
            for part in range(2):
                for head in range(self.heads):
                    for place in self.places(slot, part, head):
                        pages[slot // PAGE][place] = 0
        return pages

    def read(self, slot: int, part: int, head: int) -> Array:
        row, scale = self.row(slot, part, head)
        if self.bits == 32:
            return row.view(np.float32).astype(np.float64)
        if self.bits == 16:
            return from_bf16(row.view(np.uint16)).astype(np.float64)
        return row.view(np.int8).astype(np.float64) * float(scale[0])

    def attention(self, q: Array, position: int, first_visible: int) -> Array:
        """float64 [heads, head_dim] of q [heads, head_dim]."""
        seen = [p % self.slots for p in range(first_visible, position + 1)]
        out = np.zeros((self.heads, self.head_dim))
        for head in range(self.heads):
            keys = np.stack([self.read(slot, 0, head) for slot in seen])
            scores = keys @ q[head].astype(np.float64) / np.sqrt(self.head_dim)
            weights = np.exp(scores - scores.max())
            out[head] = weights @ np.stack([self.read(slot, 1, head) for slot in seen]) / weights.sum()
        return out


def columns_of(visible: list[tuple[int, int]], slots: int) -> Array:
    """Columns of (position, first_visible)."""
    out = np.zeros(len(visible), [("position", "i8"), ("first", "i8"), ("slot", "i4"), ("unused", "i4")])
    for i, (position, first) in enumerate(visible):
        out[i] = (position, first, position % slots, 0)
    return fixed(out)


def window(position: int, context: int) -> tuple[int, int]:
    return position, max(0, position - context + 1)
