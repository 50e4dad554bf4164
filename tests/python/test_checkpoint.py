"""Damaged checkpoints: whatever bytes a file holds, the answer is a WeightsError or a ValueError, never a crash."""

import json
import struct

import checkpoints
import hypothesis.strategies as st
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from personaplex import WeightsError, _core

SMALL = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.int64)}
# The file of a test stays from one example to the next; each example writes it anew.
one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


@pytest.fixture
def whole(path):
    _core.write_tensors(str(path), SMALL, {"name": "value"})
    return path.read_bytes()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return checkpoints.nvidia(tmp_path_factory.mktemp("checkpoint") / "model")


def read(path, data):
    """The tensors, or None when the file was refused."""
    path.write_bytes(data)
    try:
        return _core.read_tensors(str(path))
    except WeightsError:
        return None


def load(directory):
    """Loads; true when it went well."""
    try:
        _core.Model(str(directory), device="cpu").unload()
    except (WeightsError, ValueError):
        return False
    return True


def with_header(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_the_whole_file_is_read(path, whole):
    tensors = read(path, whole)
    assert {name: value.tolist() for name, value in tensors.items()} == {k: v.tolist() for k, v in SMALL.items()}


@one_file
@given(cut=st.integers(0, 400))
def test_a_cut_file_is_refused(path, whole, cut):
    assert read(path, whole[: min(cut, len(whole) - 1)]) is None


@one_file
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes(path, whole, flips):
    damaged = bytearray(whole)
    for at, mask in flips:
        damaged[at % len(whole)] ^= mask
    tensors = read(path, bytes(damaged))
    if tensors is not None:  # only values, or a name, have changed
        assert sum(value.size for value in tensors.values()) <= len(whole)


numbers = st.one_of(st.integers(-3, 40), st.integers(-(2**70), 2**70), st.floats(), st.none(), st.text(max_size=3))
lists = st.one_of(st.lists(numbers, max_size=4), st.lists(st.integers(0, 24), min_size=1, max_size=3), numbers)
entries = st.fixed_dictionaries(
    {
        "dtype": st.one_of(st.sampled_from(["F32", "F16", "BF16", "I64", "I32", "U32", "U8", "BOOL"]), numbers),
        "shape": lists,
        "data_offsets": st.one_of(lists, st.tuples(st.integers(0, 24), st.integers(0, 24))),
    }
)


@one_file
@given(
    header=st.dictionaries(st.text(max_size=8), st.one_of(entries, numbers), max_size=3), data=st.binary(max_size=24)
)
def test_any_header(path, header, data):
    tensors = read(path, with_header(header, data))
    if tensors is not None:
        assert set(tensors) == set(header) - {"__metadata__"}
        for name, value in tensors.items():
            assert list(value.shape) == header[name]["shape"]


@one_file
@given(header=st.one_of(st.binary(max_size=40), st.text(alphabet='{}[]":,0123eE.-+ntrufals\\', max_size=60)))
def test_any_bytes_as_header(path, header):
    text = header.encode() if isinstance(header, str) else header
    tensors = read(path, with_header(text, b""))
    assert tensors is None or tensors == {}


@one_file
@given(size=st.integers(0, 2**64 - 1))
def test_any_header_length(path, whole, size):
    if size != struct.unpack("<Q", whole[:8])[0]:
        assert read(path, struct.pack("<Q", size) + whole[8:]) is None


def test_files_that_mlx_writes(path):
    """Its metadata is null where there is none."""
    mx.save_safetensors(str(path), {"a": mx.arange(3), "b": mx.ones((2, 2), mx.bfloat16)})
    tensors = _core.read_tensors(str(path))
    assert {name: list(value.shape) for name, value in tensors.items()} == {"a": [3], "b": [2, 2]}


# config.json


def test_the_directory_loads(directory):
    assert load(directory)


# Every setting, a few wrong values; and sizes small enough that nothing large is built where they fit.
KEYS = sorted(checkpoints.config())
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 200), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=5)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@given(change=st.dictionaries(st.sampled_from(KEYS), values, max_size=3))
def test_any_setting(directory, change):
    (directory / "config.json").write_text(json.dumps(checkpoints.config() | change))
    load(directory)


MIMI_KEYS = [(part, key) for part, keys in checkpoints.config()["mimi"].items() for key in keys]


@given(at=st.sampled_from(MIMI_KEYS), value=values)
def test_any_setting_of_mimi(directory, at, value):
    mimi = {part: dict(keys) for part, keys in checkpoints.config()["mimi"].items()}
    mimi[at[0]][at[1]] = value
    (directory / "config.json").write_text(json.dumps(checkpoints.config() | {"mimi": mimi}))
    load(directory)


@given(text=st.one_of(st.binary(max_size=40), st.integers(0, 3000)))
def test_any_text_as_config(directory, text):
    """Random bytes, and the right text cut short."""
    right = json.dumps(checkpoints.config()).encode()
    (directory / "config.json").write_bytes(text if isinstance(text, bytes) else right[: text % len(right)])
    assert not load(directory)
