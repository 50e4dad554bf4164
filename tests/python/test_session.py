# tests/python/test_session.py: sessions are independent values: clone, reset, snapshot, poison, and what they refuse.
import numpy as np
import pytest
from goldens import GREEDY, NAMES, checkpoint, golden, load, model, prompted, talk, user_codes, user_pcm
from hypothesis import given, settings
from hypothesis import strategies as st

from personaplex import _core

WARM = _core.Sampling(text_temperature=1.0, text_top_k=0, audio_temperature=1.0, audio_top_k=0)


def same_state(a: _core.Session, b: _core.Session) -> bool:
    return (a.frames, a.position) == (b.frames, b.position) and all(
        np.array_equal(x, y) for x, y in zip(a.grid_ring(), b.grid_ring(), strict=True)
    )


def listen(session: _core.Session, pcm: np.ndarray) -> list[bytes]:
    """Everything a session answers to the frames, as bytes: tokens and samples."""
    outputs = [session.step(frame) for frame in pcm]
    return [output.tokens.tobytes() + output.audio.tobytes() for output in outputs]


@pytest.mark.parametrize("name", NAMES)
def test_interleaved_sessions_equal_separate_ones(name):
    voices = [golden(name)["voice.codes"], np.ascontiguousarray(golden(name)["voice.codes"][:, ::-1])]
    clips = [user_pcm(name)[:5], user_pcm(name)[::-1][:5]]
    alone = [
        listen(prompted(model(name), name, WARM, seed, voice_codes=voices[seed]), clips[seed]) for seed in range(2)
    ]
    pair = [prompted(model(name), name, WARM, seed, voice_codes=voices[seed]) for seed in range(2)]
    mixed = [[], []]
    for i in range(5):
        for seed in range(2):
            mixed[seed] += listen(pair[seed], clips[seed][i : i + 1])
    assert mixed == alone
    assert alone[0] != alone[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_clone_goes_its_own_way(name):
    """Clone in mid-conversation: the same future for the same input, and neither hears the other."""
    pcm = user_pcm(name)
    session = prompted(model(name), name, WARM, seed=5)
    listen(session, pcm[:2])
    twin = session.clone()
    assert same_state(session, twin)
    assert twin.seed == session.seed
    other = twin.clone()
    expected = listen(session, pcm[2:6])
    assert listen(other, pcm[::-1][:3]) != expected[:3]
    assert listen(twin, pcm[2:6]) == expected


def test_a_clone_with_a_seed_draws_its_own_noise():
    session = prompted(model("nano"), "nano", WARM, seed=5)
    forks = [session.clone(seed=seed) for seed in (5, 6, 7)]
    runs = [talk(fork, user_codes("nano")).tobytes() for fork in [session, *forks]]
    assert runs[0] == runs[1]
    assert len({*runs}) == 3
    assert [fork.seed for fork in forks] == [5, 6, 7]


def test_a_clone_outlives_its_parent():
    session = prompted(model("nano"), "nano")
    expected = listen(session.clone(), user_pcm("nano")[:2])
    twin = session.clone()
    session.close()
    assert listen(twin, user_pcm("nano")[:2]) == expected


def test_reset_repeats_the_conversation():
    session = prompted(model("nano"), "nano", WARM, seed=1)
    before = session.grid_ring()
    first = listen(session, user_pcm("nano"))
    assert session.frames == len(first)
    session.reset()
    assert session.frames == 0
    assert all(np.array_equal(a, b) for a, b in zip(session.grid_ring(), before, strict=True))
    assert listen(session, user_pcm("nano")) == first
    session.reset(seed=2)
    assert session.seed == 2
    assert listen(session, user_pcm("nano")) != first


def test_a_second_prompt_starts_afresh():
    session = prompted(model("nano"), "nano")
    listen(session, user_pcm("nano")[:3])
    session.prompt(voice_codes=golden("nano")["voice.codes"], text_tokens=golden("nano")["lmgen.text_prompt"].tolist())
    assert listen(session, user_pcm("nano")) == listen(prompted(model("nano"), "nano"), user_pcm("nano"))


def test_voice_and_text_change_the_answer():
    frames = user_codes("nano")
    base = talk(prompted(model("nano"), "nano"), frames)
    assert not np.array_equal(base, talk(prompted(model("nano"), "nano", text_tokens=[30, 31, 32]), frames))
    assert not np.array_equal(base, talk(prompted(model("nano"), "nano", voice_codes=None), frames))


@settings(max_examples=10)
@given(st.lists(st.sampled_from(["step", "clone", "reset", "snapshot", "restore"]), max_size=12))
def test_any_order_of_operations(operations):
    """A session and a record of what it heard since its origin: replaying the record gives the same state."""
    session, heard, saved = prompted(model("nano"), "nano", WARM, seed=3), [], None
    origin: list[int] = []
    for operation in operations:
        if operation == "step":
            session.step_codes(user_codes("nano")[len(heard) % 8], decode=False)
            heard = [*heard, len(heard) % 8]
        elif operation == "clone":
            session = session.clone()
        elif operation == "snapshot":
            saved = (session.snapshot(), heard)
        elif operation == "restore" and saved:
            session.restore(saved[0])
            heard = origin = saved[1]
        elif operation == "reset":
            session.reset()
            heard = origin
    replay = prompted(model("nano"), "nano", WARM, seed=3)
    for i in heard:
        replay.step_codes(user_codes("nano")[i], decode=False)
    assert all(np.array_equal(a, b) for a, b in zip(session.grid_ring(), replay.grid_ring(), strict=True))
    last = user_codes("nano")[-1]
    assert np.array_equal(session.step_codes(last).audio, replay.step_codes(last).audio)


# Snapshots.


@pytest.mark.parametrize("name", NAMES)
def test_snapshot_file_round_trip(name, tmp_path):
    session = prompted(model(name), name, WARM, seed=4)
    listen(session, user_pcm(name)[:3])
    path = str(tmp_path / "state.safetensors")
    snapshot = session.snapshot()
    snapshot.save(path, "key")
    assert snapshot.nbytes > 0
    expected = listen(session, user_pcm(name)[3:7])
    other = model(name).session(WARM, 4)
    other.restore(model(name).load_snapshot(path, "key"))
    assert other.ready
    assert listen(other, user_pcm(name)[3:7]) == expected
    other.reset()  # a restored snapshot is what reset returns to
    assert listen(other, user_pcm(name)[3:7]) == expected


def test_a_snapshot_survives_what_its_session_does_next():
    session = prompted(model("nano"), "nano")
    snapshot = session.snapshot()
    first = listen(session, user_pcm("nano")[:4])
    for _ in range(2):
        session.restore(snapshot)
        assert listen(session, user_pcm("nano")[:4]) == first


def test_a_snapshot_works_in_another_load_of_the_same_model(tmp_path):
    path = str(tmp_path / "state.safetensors")
    session = prompted(model("nano"), "nano")
    session.snapshot().save(path, "key")
    again = load("nano")
    try:
        other = again.session(GREEDY)
        other.restore(again.load_snapshot(path, "key"))
        assert listen(other, user_pcm("nano")[:3]) == listen(session, user_pcm("nano")[:3])
    finally:
        again.unload()


def test_a_snapshot_under_another_key_is_refused(tmp_path):
    path = str(tmp_path / "state.safetensors")
    prompted(model("nano"), "nano").snapshot().save(path, "key")
    with pytest.raises(_core.WeightsError, match="another"):
        model("nano").load_snapshot(path, "another key")


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, 0.99])
def test_a_truncated_snapshot_is_refused(tmp_path, kept):
    path = tmp_path / "state.safetensors"
    prompted(model("nano"), "nano").snapshot().save(str(path), "key")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(_core.WeightsError):
        model("nano").load_snapshot(str(path), "key")


def test_another_models_snapshot_is_refused(tmp_path):
    path = str(tmp_path / "state.safetensors")
    prompted(model("odd"), "odd").snapshot().save(path, "key")
    with pytest.raises(_core.WeightsError):
        model("nano").load_snapshot(path, "key")


def test_no_snapshot_there(tmp_path):
    with pytest.raises(_core.WeightsError, match="absent"):
        model("nano").load_snapshot(str(tmp_path / "absent.safetensors"), "key")


# What a session refuses, and that refusing changes nothing.

BAD_STEPS = {
    "short": (np.zeros(1919, np.float32), "1920"),
    "long": (np.zeros(1921, np.float32), "1920"),
    "empty": (np.zeros(0, np.float32), "1920"),
    "nan": (np.full(1920, np.nan, np.float32), "finite|NaN"),
    "inf": (np.full(1920, -np.inf, np.float32), "finite|Inf"),
}


@pytest.mark.parametrize("case", BAD_STEPS)
def test_bad_audio_changes_nothing(case):
    pcm, message = BAD_STEPS[case]
    session, spared = (prompted(model("nano"), "nano", WARM, seed=2) for _ in range(2))
    with pytest.raises(ValueError, match=message) as caught:
        session.step(pcm)
    assert str(caught.value).startswith("[Session.step]")
    assert session.ready
    assert not session.poisoned
    assert same_state(session, spared)
    assert listen(session, user_pcm("nano")[:3]) == listen(spared, user_pcm("nano")[:3])


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros(7, np.int32),
        np.zeros(16, np.int32),
        np.zeros((8, 1), np.int32),
        np.full(8, -1, np.int32),
        np.full(8, 64, np.int32),
    ],
    ids=["seven", "sixteen", "matrix", "negative", "past the codebook"],
)
def test_bad_codes_change_nothing(codes):
    session, spared = (prompted(model("nano"), "nano") for _ in range(2))
    with pytest.raises((ValueError, TypeError)):
        session.step_codes(codes)
    assert same_state(session, spared)
    assert np.array_equal(talk(session, user_codes("nano")[:2]), talk(spared, user_codes("nano")[:2]))


@pytest.mark.parametrize("pcm", [np.zeros(1920, np.int16), np.zeros(1920, np.float64), np.zeros((1, 1920), np.float32)])
def test_other_types_and_shapes_are_refused(pcm):
    session = prompted(model("nano"), "nano")
    with pytest.raises((TypeError, ValueError)):
        session.step(pcm)
    assert session.frames == 0


@pytest.mark.parametrize("text", [-1, 48, 2**31 - 1])
def test_bad_forced_text(text):
    session = prompted(model("nano"), "nano")
    with pytest.raises(ValueError, match="text"):
        session.step(user_pcm("nano")[0], text_token=text)
    assert session.frames == 0
    assert not session.poisoned


BAD_PROMPTS = {
    "text token": {"text_tokens": [5, 48]},
    "negative text token": {"text_tokens": [-1]},
    "seven codebooks": {"voice_codes": np.zeros((7, 4), np.int32)},
    "voice code": {"voice_codes": np.full((8, 4), 64, np.int32)},
    "embedding width": {"voice_embeddings": np.zeros((3, 63), np.float32), "voice_cache": np.zeros((17, 4), np.int64)},
    "embedding nan": {
        "voice_embeddings": np.full((3, 64), np.nan, np.float32),
        "voice_cache": np.zeros((17, 4), np.int64),
    },
    "ring shape": {"voice_embeddings": np.zeros((3, 64), np.float32), "voice_cache": np.zeros((17, 3), np.int64)},
    "ring token": {"voice_embeddings": np.zeros((3, 64), np.float32), "voice_cache": np.full((17, 4), 65, np.int64)},
    "embeddings alone": {"voice_embeddings": np.zeros((3, 64), np.float32)},
    "ring alone": {"voice_cache": np.zeros((17, 4), np.int64)},
    "two voices": {
        "voice_embeddings": np.zeros((3, 64), np.float32),
        "voice_cache": np.zeros((17, 4), np.int64),
        "voice_codes": np.zeros((8, 4), np.int32),
    },
}


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_bad_prompts_change_nothing(case):
    session, spared = (prompted(model("nano"), "nano") for _ in range(2))
    with pytest.raises(ValueError, match=r"^\[Session\.prompt\]"):
        session.prompt(**BAD_PROMPTS[case])
    assert session.ready
    assert listen(session, user_pcm("nano")[:2]) == listen(spared, user_pcm("nano")[:2])


def test_no_step_before_the_prompt():
    session = model("nano").session()
    assert not session.ready
    with pytest.raises(_core.StreamError, match="prompt"):
        session.step(user_pcm("nano")[0])
    with pytest.raises(_core.StreamError, match="prompt"):
        session.step_codes(user_codes("nano")[0])


def test_a_closed_session():
    session = prompted(model("nano"), "nano")
    session.close()
    session.close()
    with pytest.raises(_core.StreamError, match="closed"):
        session.step(user_pcm("nano")[0])


def test_outputs():
    session = prompted(model("nano"), "nano")
    for i, pcm in enumerate(user_pcm("nano")[:3]):
        output = session.step(pcm)
        assert output.index == i
        assert output.audio.shape == (1920,)
        assert output.audio.dtype == np.float32
        assert np.isfinite(output.audio).all()
        assert output.tokens.shape == (17,)
        assert output.tokens.dtype == np.int32
        assert output.text_token == output.tokens[0]
        assert output.step_ms > 0
    assert session.frames == 3


def test_progress_counts_every_column():
    calls: list[tuple[int, int]] = []
    session = model("nano").session(GREEDY)
    session.prompt(
        voice_codes=golden("nano")["voice.codes"], text_tokens=[5] * 9, chunk=3, progress=lambda *c: calls.append(c)
    )
    total = session.position
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert {of for _, of in calls} == {total}
    assert total == 7 + 6 + 9 + 6


def test_the_sampling_of_a_session_can_change():
    session = prompted(model("nano"), "nano", WARM)
    session.sampling = GREEDY
    assert np.array_equal(talk(session, user_codes("nano")), golden("nano")["lmgen.out"])


def test_config_is_the_checkpoints():
    assert checkpoint("nano")
    config = model("nano").config
    expected = golden("nano").manifest["lm_kwargs"]
    for key in ("dim", "num_layers", "num_heads", "n_q", "card", "text_card", "context", "delays"):
        assert config[key] == expected[key]
    assert config["rows"] == expected["n_q"] + 1
    assert config["frame_samples"] == 1920
    assert config["spacer_frames"] == 6
    assert config["silence_codes"] == golden("nano")["lmgen.silence_tokens"].tolist()


def test_a_step_tells_where_its_time_went():
    session = prompted(model("nano"), "nano")
    frame = user_pcm("nano")[0]
    plain = session.step(frame)
    assert (plain.encode_ms, plain.temporal_ms, plain.depformer_ms, plain.decode_ms) == (None,) * 4
    session.set_timing(True)
    timed = session.step(frame)
    parts = [timed.encode_ms, timed.temporal_ms, timed.depformer_ms, timed.decode_ms]
    assert min(parts) > 0
    assert sum(parts) <= timed.step_ms
    from_codes = session.clone().step_codes(user_codes("nano")[0], decode=False)
    assert (from_codes.encode_ms, from_codes.decode_ms) == (0, 0)
    assert from_codes.temporal_ms > 0


def test_timing_changes_no_token():
    sessions = [prompted(model("nano"), "nano", WARM, 3) for _ in range(2)]
    sessions[0].set_timing(True)
    assert listen(sessions[0], user_pcm("nano")[:3]) == listen(sessions[1], user_pcm("nano")[:3])
