# tests/python/test_grid.py: property tests of the token ring against an endless table, over arbitrary prompts.
import numpy as np
import pytest
import reference
from goldens import GREEDY, NAMES, PAD, SPACER_FRAMES, golden, lm_kwargs, model
from hypothesis import given, settings
from hypothesis import strategies as st


class Conversation:
    """A session and a table that are told the same things."""

    def __init__(self, name: str, voice: np.ndarray | None, text: list[int], steps: int = 0, chunk: int = 32) -> None:
        kwargs = lm_kwargs(name)
        self.data = golden(name)
        self.grid = reference.Grid(kwargs["delays"], kwargs["text_card"], kwargs["card"])
        self.session = model(name, depformer_steps=steps).session(GREEDY)
        self.session.set_probing(True)
        sine, silence = self.data["lmgen.sine_tokens"], self.data["lmgen.silence_tokens"]
        frames = [] if voice is None else [(codes, PAD) for codes in voice.T]
        frames += [(silence, token) for token in [PAD] * SPACER_FRAMES + text + [PAD] * SPACER_FRAMES]
        for agent, token in frames[1:]:  # call 0 only sets the start column: the first frame is lost
            self.grid.put(sine, agent, token)
            self.grid.finish([])
        self.session.prompt(voice_codes=voice, text_tokens=text, chunk=chunk)

    def check_ring(self) -> None:
        tokens, flags = self.session.grid_ring()
        expected, forced = self.grid.ring()
        assert np.array_equal(tokens, expected)
        assert np.array_equal(flags, forced)
        assert self.session.position == self.grid.t - 1

    def step(self, user: np.ndarray) -> None:
        output = self.session.step_codes(user, decode=False)
        self.finish(user, None, output)

    def finish(self, user: np.ndarray, text: int | None, output) -> None:
        """Predictions are the argmax of the step's own logits; where they land is the table's business."""
        probe = self.session.probe()
        self.grid.put(user, None, text)
        self.grid.finish([probe["text_logits"].argmax(), *probe["audio_logits"].argmax(-1)])
        expected = self.grid.output()
        assert np.array_equal(output.tokens, expected)
        assert output.text_token == expected[0]
        self.check_ring()


def codes(name: str, draw, frames: int) -> np.ndarray:
    kwargs = lm_kwargs(name)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, kwargs["card"], (kwargs["n_q"] // 2, frames)).astype(np.int32)


@st.composite
def prompts(draw, name):
    voice_frames = draw(st.sampled_from([0, 2, 3, 5, 9]))  # one frame alone would never reach the model
    voice = codes(name, draw, voice_frames) if voice_frames else None
    text = draw(st.lists(st.integers(0, lm_kwargs(name)["text_card"] - 1), max_size=12))
    return voice, text, codes(name, draw, draw(st.integers(1, 6))), draw(st.integers(1, 32)), draw(st.booleans())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(data=st.data())
def test_any_conversation(name, data):
    voice, text, user, chunk, every_step = data.draw(prompts(name))
    steps = lm_kwargs(name)["n_q"] if every_step else 0
    talk = Conversation(name, voice, text, steps, chunk)
    talk.check_ring()
    for column in user.T:
        talk.step(np.ascontiguousarray(column))


@pytest.mark.parametrize("name", NAMES)
def test_forced_text(name):
    """step(text_token=...) forces the agent's text of the frame; the depformer hears it."""
    talk = Conversation(name, golden(name)["voice.codes"], [5, 6])
    frames = golden(name)["lmgen.user_codes"].shape[1]
    pcm = golden(name)["lmgen.user_pcm"].reshape(frames, -1)
    for i, (samples, user) in enumerate(zip(pcm, golden(name)["lmgen.user_codes"].T, strict=True)):
        text = 7 + i if i % 2 else None
        talk.finish(user, text, talk.session.step(samples, text_token=text))


@pytest.mark.parametrize("name", NAMES)
def test_ring_shape_and_types(name):
    talk = Conversation(name, None, [])
    tokens, flags = talk.session.grid_ring()
    kwargs = lm_kwargs(name)
    assert tokens.shape == flags.shape == (kwargs["n_q"] + 1, max(kwargs["delays"]) + 3)
    assert tokens.dtype == np.int32
    assert flags.dtype == np.uint8


@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_voice_equals_the_fed_one(name):
    data = golden(name)
    fed = Conversation(name, data["voice.codes"], [4, 9])
    embeddings, cache = fed.session.voice_preset()
    replayed = model(name).session(GREEDY)
    replayed.prompt(voice_embeddings=embeddings, voice_cache=cache, text_tokens=[4, 9])
    for user in data["lmgen.user_codes"].T:
        output = replayed.step_codes(np.ascontiguousarray(user), decode=False)
        fed.step(np.ascontiguousarray(user))
        assert np.array_equal(output.tokens, fed.grid.output())
        assert all(np.array_equal(a, b) for a, b in zip(replayed.grid_ring(), fed.session.grid_ring(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_answer_is_the_last_spacer_frame(name):
    """The agent says what it was told in the prompt's last frame: output lags by the delay."""
    data = golden(name)
    talk = Conversation(name, data["voice.codes"], [4])
    output = talk.session.step_codes(np.ascontiguousarray(data["lmgen.user_codes"][:, 0]), decode=False)
    expected = [PAD, *data["lmgen.silence_tokens"], *data["lmgen.sine_tokens"]]
    assert output.tokens.tolist() == expected
    assert output.index == 0
