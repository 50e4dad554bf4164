"""The loop of an answer on a scripted core: when it ends, what it hears, what an interrupt leaves."""

import hypothesis.strategies as st
import numpy as np
import pytest
from fakes import PAD, FakeModel, make_model, says
from hypothesis import given

from personaplex.errors import DeviceError, StreamError
from personaplex.generation import SILENT_FRAMES, FallenSilent

WORD = 300  # a text id that shows something
LOUD, QUIET = 0.5, 10 ** (-60 / 20)


def user(frames, level=0.25):
    return np.full(frames * 1920, level, np.float32), 24000


def steps(script, frames=10, max_steps=200):
    core = FakeModel(script)
    response = make_model(core).respond(user(frames), max_steps=max_steps)
    return len(response.tokens), response.metadata["stop_reason"], core


# When it ends


def test_ends_25_silent_frames_after_the_word():
    count, reason, _ = steps(says((WORD, LOUD), start=12), frames=10)
    assert (count, reason) == (12 + 1 + 25, "fallen_silent")


def test_a_word_spoken_during_the_input_counts():
    count, reason, _ = steps(says((WORD, LOUD), start=2), frames=10)
    assert (count, reason) == (10 + 25, "fallen_silent")


def test_silence_before_the_inputs_end_does_not_count():
    count, _, _ = steps(says((WORD, LOUD), start=0), frames=100)
    assert count == 100 + 25


def test_who_never_spoke_is_waited_for():
    assert steps(says(), max_steps=40)[:2] == (50, "max_steps")


@pytest.mark.parametrize("token", [0, PAD])
def test_hidden_ids_are_no_speech(token):
    assert steps(says(*[(token, LOUD)] * 3, start=11), max_steps=60)[:2] == (70, "max_steps")


def test_sound_without_text_is_no_silence():
    script = says((WORD, LOUD), *[(PAD, LOUD)] * 30, start=10)
    assert steps(script)[:2] == (10 + 31 + 25, "fallen_silent")


def test_text_without_sound_is_no_silence():
    script = says(*[(WORD, 0.0)] * 30, start=10)
    assert steps(script)[:2] == (10 + 30 + 25, "fallen_silent")


def test_quiet_noise_is_silence_and_its_interruption_starts_anew():
    script = says((WORD, LOUD), *[(PAD, QUIET)] * 24, (PAD, LOUD), *[(0, QUIET)] * 40, start=10)
    assert steps(script)[:2] == (10 + 1 + 24 + 1 + 25, "fallen_silent")


def test_a_level_just_over_the_threshold_is_no_silence():
    script = says((WORD, LOUD), *[(PAD, 10 ** (-49.9 / 20))] * 100, start=10)
    assert steps(script, max_steps=60)[:2] == (70, "max_steps")


@pytest.mark.parametrize(("max_steps", "count"), [(0, 10), (1, 11), (24, 34)])
def test_never_more_than_max_steps(max_steps, count):
    assert steps(says((WORD, LOUD)), max_steps=max_steps)[:2] == (count, "max_steps")


@given(
    st.lists(st.tuples(st.sampled_from([0, PAD, WORD]), st.sampled_from([0.0, QUIET, LOUD])), max_size=80),
    st.integers(1, 20),
    st.integers(0, 70),
)
def test_the_rule_as_it_is_written(parts, frames, max_steps):
    script = says(*parts)
    count, reason, _ = steps(script, frames, max_steps)

    def quiet(i):
        return script(i)[0] in (0, PAD) and script(i)[1] < 10 ** (-50 / 20)

    ends = [
        n
        for n in range(frames + SILENT_FRAMES, frames + max_steps + 1)
        if all(quiet(i) for i in range(n - SILENT_FRAMES, n)) and any(script(i)[0] == WORD for i in range(n))
    ]
    assert (count, reason) == ((ends[0], "fallen_silent") if ends else (frames + max_steps, "max_steps"))


def test_the_rule_never_ends_before_25_frames():
    rule = FallenSilent(frozenset({0, PAD}))
    silence = np.zeros(1920, np.float32)
    rule.update(WORD, silence, after_input=False)
    assert [rule.update(PAD, silence, after_input=True) for _ in range(25)] == [False] * 24 + [True]


# What it hears


def test_hears_every_frame_then_silence():
    _, _, core = steps(says((WORD, LOUD)), frames=3)
    assert len(core.heard) == 28
    assert all((frame == 0.25).all() for frame in core.heard[:3])
    assert not any(frame.any() for frame in core.heard[3:])


def test_two_sessions_do_not_share_state():
    core = FakeModel(lambda index: (300 + index, LOUD))
    model = make_model(core)
    with model.session(voice="none") as one, model.session(voice="none") as two:
        silence = np.zeros(1920, np.float32)
        assert [one.step(silence).index, one.step(silence).index, two.step(silence).index] == [0, 1, 0]


# What an interrupt or a failure leaves


def test_an_interrupt_reaches_the_caller_of_respond_and_frees_the_session():
    core = FakeModel(says(WORD), interrupt_at=5)
    with pytest.raises(KeyboardInterrupt):
        make_model(core).respond(user(10))
    assert core.sessions[0].closed


def test_an_interrupted_stream_keeps_what_it_has():
    core = FakeModel(says(WORD), interrupt_at=5)
    with make_model(core).respond_stream(user(10), keep=True) as generation:
        with pytest.raises(KeyboardInterrupt):
            list(generation)
        response = generation.response()
    assert response.tokens.shape == (5, 17)
    assert len(response.audio) == len(response.user) == 5 * 1920
    assert response.metadata["stop_reason"] == "closed"


def test_a_failing_step_poisons_until_reset():
    core = FakeModel(says(WORD), fail_at=1)
    with make_model(core).session(voice="none") as session:
        silence = np.zeros(1920, np.float32)
        session.step(silence)
        with pytest.raises(MemoryError):
            session.step(silence)
        assert session.poisoned
        with pytest.raises(StreamError, match="reset"):
            session.step(silence)
        core.fail_at = -1
        session.reset()
        assert session.step(silence).index == 0


def test_closing_a_stream_frees_the_session():
    core = FakeModel()
    generation = make_model(core).respond_stream(user(10))
    next(generation)
    generation.close()
    generation.close()
    assert core.closed == 1
    assert list(generation) == []
    assert generation.stop_reason == "closed"


def test_a_stream_never_started_is_freed_too():
    core = FakeModel()
    with make_model(core).respond_stream(user(10)):
        pass
    assert core.closed == 1


def test_without_keep_there_is_no_response():
    with (
        make_model().respond_stream(user(1), max_steps=0) as generation,
        pytest.raises(StreamError, match="keep=True"),
    ):
        generation.response()


def test_a_failed_prompt_frees_the_session(monkeypatch):
    core = FakeModel()
    monkeypatch.setattr("fakes.FakeSession.prompt", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_model(core).session(voice="none")
    assert core.closed == 1


def test_an_unloaded_model_says_so():
    model = make_model()
    model.unload()
    assert not model.loaded
    with pytest.raises(DeviceError, match="unloaded"):
        model.respond(user(1))


# Arguments are checked before anything is generated


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": -1}, "max_steps"),
        ({"max_steps": 1.5}, "max_steps"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 64}, "seed"),
        ({"seed": True}, "seed"),
        ({"audio_temperature": -0.1}, "audio_temperature"),
        ({"audio_temperature": float("nan")}, "audio_temperature"),
        ({"text_temperature": "hot"}, "text_temperature"),
        ({"text_top_k": -1}, "text_top_k"),
        ({"audio_top_k": 2.5}, "audio_top_k"),
        ({"voice": "NATX9"}, "neither a voice nor a file"),
        ({"system_prompt": "@/no/such/file"}, "No such file"),
        ({"system_prompt": "word " * 4000}, "context"),
    ],
)
def test_wrong_arguments_are_refused_by_name(options, message):
    core = FakeModel()
    with pytest.raises(ValueError, match=message):
        make_model(core).respond(user(1), **options)
    assert core.sessions == []


def test_a_fresh_seed_is_drawn_and_told():
    model = make_model()
    seeds = {model.respond(user(1), max_steps=0).metadata["seed"] for _ in range(4)}
    assert len(seeds) == 4
    assert model.respond(user(1), max_steps=0, seed=7).metadata["seed"] == 7


def test_greedy_is_temperature_zero():
    core = FakeModel()
    make_model(core).respond(user(1), max_steps=0, greedy=True)
    sampling = core.sessions[0].sampling
    assert (sampling.text_temperature, sampling.audio_temperature) == (0.0, 0.0)


def test_progress_counts_up_to_the_end():
    calls = []
    make_model().respond(user(3), max_steps=5, on_progress=lambda *call: calls.append(call))
    assert calls == [(n, 8) for n in range(1, 9)]
