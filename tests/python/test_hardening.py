# tests/python/test_hardening.py: edited snapshots, long delays, mismatched checkpoints, arrays that only claim a size.
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from goldens import GREEDY, checkpoint, golden, model, prompted, talk, user_codes, user_pcm

import tensors  # isort: skip  tests/golden, which goldens has put on the path

from personaplex import _core

Tensors = dict[str, np.ndarray]
ROWS, DEPTH, CARD, TEXT_CARD = 17, 4, 64, 48
FRAMES = 3


# Snapshot files with the right format and key whose tensors were edited.


def write_snapshot(path: Path, content: Tensors) -> None:
    """tensors.write, with the metadata of a snapshot."""
    tensors.write(path, content)
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size]) | {"__metadata__": {"format": "personaplex-snapshot-1", "key": "key"}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """What a session of three frames saves."""
    path = tmp_path_factory.mktemp("snapshot") / "saved.safetensors"
    session = prompted(model("nano"), "nano")
    for pcm in user_pcm("nano")[:FRAMES]:
        session.step(pcm)
    session.snapshot().save(str(path), "key")
    return tensors.read(path)


def edited(saved: Tensors, path: Path, edit: Callable[[Tensors], object]) -> str:
    content = {name: value.copy() for name, value in saved.items()}
    edit(content)
    write_snapshot(path, content)
    return str(path)


def put(name: str, value: float, index: object = 0) -> Callable[[Tensors], None]:
    def edit(content: Tensors) -> None:
        content[name][index] = value

    return edit


def drop(name: str) -> Callable[[Tensors], object]:
    return lambda content: content.pop(name)


def replace(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors], None]:
    def edit(content: Tensors) -> None:
        content[name] = change(content[name])

    return edit


def cell(row: int, column: int) -> int:
    return row * DEPTH + column % DEPTH


def newest(content: Tensors) -> int:
    """The column that the next step reads."""
    return int(content["session.counters"][0]) - 1


EDITS: dict[str, Callable[[Tensors], object]] = {
    "odd encoder position": put("encoder.ring.position", 2 * FRAMES - 1),
    "odd decoder position": put("decoder.ring.position", 2 * FRAMES + 1),
    "largest encoder position": put("encoder.ring.position", 2**63 - 1),
    "huge encoder position": put("encoder.ring.position", 2**62),
    "largest temporal position": put("temporal.position", 2**63 - 1),
    "negative position": put("temporal.position", -1),
    "temporal position off by one": put("session.counters", 1, 2),
    "encoder without its keys": drop("encoder.ring.k.0"),
    "longer carry": replace("encoder.carry.0", lambda a: np.concatenate([a, a])),
    "shorter carry": replace("decoder.carry.1", lambda a: a[:-1]),
    "flat carry": replace("encoder.carry.0", lambda a: a.reshape(-1)),
    "empty resample": replace("encoder.resample", lambda a: a[:0]),
    "integer carry": replace("encoder.carry.0", lambda a: a.astype(np.int32)),
    "missing carry": drop("decoder.carry.0"),
    "missing resample": drop("decoder.resample"),
    "carry too many": lambda content: content.update({"encoder.carry.99": np.zeros((1, 1), np.float32)}),
    "layer too many": lambda content: content.update({"temporal.k.99": content["temporal.k.0"]}),
    "unknown tensor": lambda content: content.update({"session.more": np.zeros(1, np.int64)}),
    "encoder position 0, carries": put("encoder.ring.position", 0),
    "carry of NaN": put("encoder.carry.0", np.nan, (0, 0)),
    "resample of infinity": put("decoder.resample", -np.inf, (0, 0)),
    "key of NaN": put("temporal.k.0", np.nan, (0, 0, 0, 0)),
    "value of infinity": put("decoder.ring.v.0", np.inf, (0, 0, 0, 0)),
    "audio token of the text": put("session.ring", CARD + 1, cell(1, 0)),
    "text token of the audio": put("session.ring", TEXT_CARD + 1, cell(0, 0)),
    "token below all": put("session.ring", -3, cell(5, 0)),
    "token that wraps": put("session.ring", 2**32, cell(5, 0)),
    "empty cell that is read": lambda content: put("session.ring", -2, cell(5, newest(content)))(content),
    "flag of 2": put("session.forced", 2),
    "huge counters": put("session.counters", 2**62, slice(None)),
    "largest frame counter": put("session.counters", 2**63 - 1, 0),
    "negative step counter": put("session.counters", -1, 1),
    "more steps than frames": put("session.counters", 2**40, 1),
    "no frame yet": put("session.counters", 0, slice(None)),
    "two counters": replace("session.counters", lambda a: a[:2]),
    "ring of another depth": replace("session.ring", lambda a: a[:-1]),
}


@pytest.mark.parametrize("case", EDITS)
def test_an_edited_snapshot_is_refused(saved, tmp_path, case):
    path = edited(saved, tmp_path / "edited.safetensors", EDITS[case])
    with pytest.raises(_core.WeightsError, match=r"^\[(Snapshot\.load|load_snapshot)\]"):
        model("nano").load_snapshot(path, "key")


def test_a_rewritten_snapshot_is_accepted(saved, tmp_path):
    """The edits above are what is refused, not the way in which the file is written."""
    path = edited(saved, tmp_path / "same.safetensors", lambda _: None)
    session = model("nano").session(GREEDY)
    session.restore(model("nano").load_snapshot(path, "key"))
    expected = prompted(model("nano"), "nano")
    for pcm in user_pcm("nano")[:FRAMES]:
        expected.step(pcm)
    for pcm in user_pcm("nano")[FRAMES:]:
        a, b = session.step(pcm), expected.step(pcm)
        assert np.array_equal(a.tokens, b.tokens)
        assert np.array_equal(a.audio, b.audio)


@pytest.mark.parametrize("decode", [False, True], ids=["tokens only", "decoder only"])
@pytest.mark.parametrize("frames", [0, 2])
def test_halves_of_the_codec_that_were_not_used(tmp_path, frames, decode):
    path = str(tmp_path / "state.safetensors")
    session = prompted(model("nano"), "nano")
    for codes in user_codes("nano")[:frames]:
        session.step_codes(codes, decode=decode)
    session.snapshot().save(path, "key")
    again = model("nano").session(GREEDY)
    again.restore(model("nano").load_snapshot(path, "key"))
    for pcm in user_pcm("nano")[:2]:
        a, b = again.step(pcm), session.step(pcm)
        assert np.array_equal(a.tokens, b.tokens)
        assert np.array_equal(a.audio, b.audio)


# Checkpoints whose config.json says something else than their tensors.


def variant(tmp_path: Path, **changes: object) -> str:
    """The nano checkpoint with other values in its config.json."""
    directory = tmp_path / "variant"
    directory.mkdir()
    for file in Path(checkpoint("nano")).iterdir():
        os.symlink(file, directory / file.name)
    config = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").unlink()
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [("num_layers", 1, "transformer.layers.1"), ("depformer_num_layers", 1, "depformer.layers.1")],
)
def test_a_file_with_more_layers_than_the_config(tmp_path, key, value, found):
    assert golden("nano").manifest["lm_kwargs"][key] == 2
    with pytest.raises(_core.WeightsError, match=f"{found}: config.json says {key} = {value}"):
        _core.Model(variant(tmp_path, **{key: value}), device="cpu")


DELAYS = [0, 0, *[20] * 7, 0, *[20] * 7]


def test_a_prompt_shorter_than_the_delays(tmp_path):
    """21 frames are needed: 12 of silence, and 9 of text or voice."""
    delayed = _core.Model(variant(tmp_path, delays=DELAYS), device="cpu", dtype="float32")
    try:
        session = delayed.session(GREEDY)
        for prompt in ({}, {"text_tokens": [5] * 8}, {"voice_codes": golden("nano")["voice.codes"][:, :8]}):
            with pytest.raises(ValueError, match=r"^\[Session\.prompt\] expected a prompt of at least 21 frames"):
                session.prompt(**prompt)
            assert not session.ready
        session.prompt(text_tokens=[5] * 9)
        path = str(tmp_path / "state.safetensors")
        session.snapshot().save(path, "key")
        tokens = talk(session, user_codes("nano"))
        config = delayed.config  # the first frame whose rows are all there is number 1
        assert tokens[0].tolist() == [3, *config["silence_codes"], *config["sine_codes"]]
        again = delayed.session(GREEDY)
        again.restore(delayed.load_snapshot(path, "key"))
        assert np.array_equal(talk(again, user_codes("nano")), tokens)
    finally:
        delayed.unload()


@pytest.mark.parametrize("context", [10_000_001, 2**31 - 1])
def test_a_context_beyond_all_use(tmp_path, context):
    with pytest.raises(ValueError, match="10000000"):
        _core.Model(checkpoint("nano"), device="cpu", context=context)
    with pytest.raises(_core.WeightsError, match="context: expected"):
        _core.Model(variant(tmp_path, context=context), device="cpu")


# Voice presets.


def preset() -> tuple[np.ndarray, np.ndarray]:
    return prompted(model("nano"), "nano").voice_preset()


def test_empty_cells_of_a_voice_ring():
    """Frame t = V + 1 is next: column t - 1 is read, column t too where a delay has filled it, and nothing else."""
    embeddings, ring = preset()
    next_frame = len(embeddings) + 1
    delays = model("nano").config["delays"]
    for row in range(ROWS):
        for column in range(next_frame - 1, next_frame - 1 + DEPTH):
            cache = ring.copy()
            cache[row, column % DEPTH] = -2
            session = model("nano").session(GREEDY)
            if column == next_frame - 1 or (column == next_frame and delays[row] == 1):
                with pytest.raises(ValueError, match=f"token -2 in row {row}, column {column % DEPTH}"):
                    session.prompt(voice_embeddings=embeddings, voice_cache=cache)
            else:
                session.prompt(voice_embeddings=embeddings, voice_cache=cache)


def test_zero_tokens_in_a_voice_ring():
    embeddings, ring = preset()
    model("nano").session(GREEDY).prompt(voice_embeddings=embeddings, voice_cache=np.full_like(ring, -1))


# Arrays that claim a size without having it: refused before anything of that size is copied.

CLAIMED = 10**12


def claiming(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.broadcast_to(np.zeros(1, dtype), shape)


def test_arrays_are_measured_before_they_are_copied():
    session = prompted(model("nano"), "nano")
    _, ring = preset()
    uses = {
        "samples": lambda: session.step(claiming((CLAIMED,), np.float32)),
        "codes": lambda: session.step_codes(claiming((CLAIMED,), np.int64)),
        "pcm": lambda: model("nano").encode(claiming((CLAIMED + 1,), np.float32)),
        "voice_codes": lambda: session.prompt(voice_codes=claiming((8, CLAIMED), np.int64)),
        "voice_embeddings": lambda: session.prompt(
            voice_embeddings=claiming((CLAIMED, 64), np.float32), voice_cache=ring
        ),
    }
    for what, use in uses.items():
        with pytest.raises(ValueError, match=rf"^\[(Session|Model)\.\w+\] expected .*{CLAIMED // 10}"):
            use()
        assert session.ready, what


# Paths.


def test_a_path_with_a_nul_byte(tmp_path):
    """The system would cut it there and use another file."""
    path = f"{tmp_path}/cut\0off"
    snapshot = prompted(model("nano"), "nano").snapshot()
    uses = [
        lambda: snapshot.save(path, "key"),
        lambda: model("nano").load_snapshot(path, "key"),
        lambda: _core.Model(checkpoint("nano") + "\0more", device="cpu"),
        lambda: _core.write_tensors(path, {}, {}),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="without NUL bytes"):
            use()
    assert not list(tmp_path.iterdir())


# Ctrl-C.

LONG = 3000  # frames: far longer to work through than the test waits


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("name", ["encode", "decode", "probe_mimi"])
def test_ctrl_c_ends_the_codec(name):
    pcm, codes = np.zeros(1920 * LONG, np.float32), np.zeros((8, LONG), np.int32)
    use = {
        "encode": lambda: model("nano").encode(pcm),
        "decode": lambda: model("nano").decode(codes),
        "probe_mimi": lambda: model("nano").probe_mimi(pcm),
    }[name]
    whole = model("nano").encode(pcm[: 1920 * 2])
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    begin = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        use()
    assert time.monotonic() - begin < 2
    assert np.array_equal(model("nano").encode(pcm[: 1920 * 2]), whole)
