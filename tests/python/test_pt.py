"""The .pt reader: what torch.save writes is read, everything else is refused, nothing in it is ever run."""

import os
import pickle
import zipfile

import hypothesis.strategies as st
import numpy as np
import pt_files
import pytest
from hypothesis import given

from personaplex import pt
from personaplex.errors import WeightsError


def read(tmp_path, data):
    path = tmp_path / "voice.pt"
    path.write_bytes(data)
    return pt.read_voice(path)


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "bf16"])
def test_reads_every_float_type(tmp_path, dtype):
    saved = pt_files.voice(dtype=dtype)
    loaded = read(tmp_path, pt_files.save(saved))
    assert set(loaded) == {"embeddings", "cache"}
    assert loaded["embeddings"].shape == (5, 1, 1, 8)
    assert loaded["embeddings"].dtype == np.float32
    assert loaded["cache"].dtype == np.int64
    np.testing.assert_array_equal(loaded["cache"], saved["cache"])
    if dtype == "bf16":
        assert (loaded["embeddings"].view(np.uint32) >> 16 == saved["embeddings"]).all()
    else:
        np.testing.assert_array_equal(loaded["embeddings"], saved["embeddings"].astype(np.float32))


def test_reads_views_with_offset_and_strides(tmp_path):
    numbers = np.arange(24, dtype="<f4")
    entries = {"t": pt_files.tensor("FloatStorage", "0", 24, (3, 4), (1, 6), offset=2)}
    data = pt_files.archive({"a/data.pkl": pt_files.pickle_of(entries), "a/data/0": numbers.tobytes()})
    loaded = read(tmp_path, data)
    np.testing.assert_array_equal(loaded["t"], [[2 + r + 6 * c for c in range(4)] for r in range(3)])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.randoms(use_true_random=False), st.integers(0, 5))
def test_any_permuted_tensor_reads_as_numpy_sees_it(tmp_path_factory, shape, random, offset):
    size = int(np.prod(shape))
    numbers = np.arange(offset + size, dtype="<f4")
    axes = list(range(len(shape)))
    random.shuffle(axes)
    view = numbers[offset:].reshape(shape).transpose(axes)
    strides = tuple(s // 4 for s in view.strides)
    entries = {"t": pt_files.tensor("FloatStorage", "0", len(numbers), view.shape, strides, offset)}
    data = pt_files.archive({"a/data.pkl": pt_files.pickle_of(entries), "a/data/0": numbers.tobytes()})
    np.testing.assert_array_equal(read(tmp_path_factory.mktemp("pt"), data)["t"], view)


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def _with_pickle(data, **records):
    return pt_files.archive({"v/data.pkl": data, **{f"v/{k}": v for k, v in records.items()}})


def _tensor_file(shape=(2, 2), strides=None, offset=0, count=4, kind="FloatStorage", stored=16, key="0"):
    entries = {"t": pt_files.tensor(kind, key, count, shape, strides, offset)}
    return pt_files.archive({"v/data.pkl": pt_files.pickle_of(entries), "v/data/0": bytes(stored)})


REFUSED = {
    "empty file": (b"", "not a zip"),
    "text": (b"hello", "not a zip"),
    "old torch.save": (pickle.dumps({"embeddings": 1}), "not a zip"),
    "no pickle": (pt_files.archive({"v/data/0": b"1234"}), "no data.pkl"),
    "runs code": (_with_pickle(pickle.dumps(_Runs(), protocol=2)), "mkdir"),
    "runs code, new protocol": (_with_pickle(pickle.dumps(_Runs(), protocol=4)), "mkdir"),
    "another class": (_with_pickle(b"\x80\x02ctorch.nn\nLinear\n."), "torch.nn.Linear"),
    "another torch function": (_with_pickle(b"\x80\x02ctorch._utils\n_rebuild_parameter\n."), "_rebuild_parameter"),
    "build opcode": (_with_pickle(b"\x80\x02ccollections\nOrderedDict\n)R}b."), "BUILD"),
    "inst opcode": (_with_pickle(b"(S'x'\nios\nmkdir\n."), "STRING"),
    "not a dict": (_with_pickle(b"\x80\x02K\x01."), "expected a dict"),
    "a dict of numbers": (_with_pickle(pt_files.pickle_of({"a": b"K\x01"})), "expected tensors"),
    "a storage called": (_with_pickle(b"\x80\x02ctorch\nFloatStorage\n)R."), "damaged"),
    "bytes storage": (_tensor_file(kind="ByteStorage"), "torch.ByteStorage"),
    "huge memo": (_with_pickle(b"\x80\x02}r\xff\xff\xff\x7f."), "memo"),
    "cut pickle": (_with_pickle(pt_files.pickle_of({"a": b"K\x01"})[:-2]), "damaged"),
    "missing storage": (_tensor_file(key="7"), "no record"),
    "short storage": (_tensor_file(stored=12), "should have"),
    "long storage": (_tensor_file(stored=20), "should have"),
    "negative count": (_tensor_file(count=-4), "should have"),
    "outside": (_tensor_file(offset=1), "reaches outside"),
    "outside by stride": (_tensor_file(strides=(3, 1)), "reaches outside"),
    "negative stride": (_tensor_file(strides=(-1, 1)), "strides"),
    "negative offset": (_tensor_file(offset=-1), "offset"),
    "no elements": (_tensor_file(shape=(0, 2)), "shape"),
    "stretched": (_tensor_file(shape=(1 << 30, 4), strides=(0, 1)), "reaches outside"),
    "overflow": (_tensor_file(shape=(1 << 70, 1), strides=(1, 1)), "shape"),
    "too many axes": (_tensor_file(shape=(1,) * 9), "shape"),
    "strides of another length": (_tensor_file(strides=(1,)), "shape"),
    "big-endian": (pt_files.save(pt_files.voice(), byteorder=b"big"), "big-endian"),
    "compressed": (pt_files.archive({"v/data.pkl": bytes(1000)}, zipfile.ZIP_DEFLATED), "compressed"),
    "path upwards": (pt_files.archive({"v/../../data.pkl": b"."}), "unexpected name"),
    "absolute path": (pt_files.archive({"/etc/data.pkl": b"."}), "unexpected name"),
    "too many records": (pt_files.archive({f"v/data/{i}": b"" for i in range(100)}), "100 records"),
    "large pickle": (_with_pickle(bytes(pt.MAX_PICKLE_BYTES + 1)), "its pickle has"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", REFUSED)
def test_refuses(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    data, message = REFUSED[name]
    with pytest.raises(WeightsError, match=r"\[voice\] '.*voice.pt'") as raised:
        read(tmp_path, data)
    assert message in str(raised.value)
    assert sorted(os.listdir(tmp_path)) == ["voice.pt"]


def test_refuses_a_file_larger_than_any_voice(tmp_path):
    path = tmp_path / "voice.pt"
    with path.open("wb") as file:
        file.truncate(pt.MAX_FILE_BYTES + 1)  # sparse
    with pytest.raises(WeightsError, match="at most"):
        pt.read_voice(path)


def test_missing_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        pt.read_voice(tmp_path / "none.pt")


GOOD = pt_files.save(pt_files.voice())


@given(st.integers(0, len(GOOD) - 1))
def test_every_truncation_is_refused(tmp_path_factory, length):
    with pytest.raises(WeightsError):
        read(tmp_path_factory.mktemp("pt"), GOOD[:length])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_flipped_byte_gives_tensors_or_a_clear_error(tmp_path_factory, position, mask):
    data = bytearray(GOOD)
    data[position] ^= mask
    try:
        loaded = read(tmp_path_factory.mktemp("pt"), bytes(data))
    except WeightsError:
        return
    assert all(isinstance(value, np.ndarray) for value in loaded.values())


@given(st.binary(max_size=200))
def test_any_pickle_gives_tensors_or_a_clear_error(tmp_path_factory, tail):
    try:
        loaded = read(tmp_path_factory.mktemp("pt"), _with_pickle(b"\x80\x02" + tail))
    except WeightsError:
        return
    assert all(isinstance(value, np.ndarray) for value in loaded.values())
