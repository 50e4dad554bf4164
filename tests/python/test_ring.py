# tests/python/test_ring.py: the temporal KV ring against a full table with an explicit window mask.
import hypothesis.strategies as st
import numpy as np
import pytest
import reference
from goldens import NAMES, golden, lm_kwargs, lm_weights, load, model, prompted, relative_error, talk, user_codes
from hypothesis import given, settings


def random_columns(name: str, count: int, seed: int = 0) -> np.ndarray:
    """[rows, count] tokens, some of them -1."""
    kwargs, rng = lm_kwargs(name), np.random.default_rng(seed)
    columns = rng.integers(0, kwargs["card"], (kwargs["n_q"] + 1, count))
    columns[0] = rng.integers(0, kwargs["text_card"], count)
    columns[rng.random(columns.shape) < 0.1] = -1
    return columns.astype(np.int32)


def naive_hidden(name: str, columns: np.ndarray, context: int) -> np.ndarray:
    w = lm_weights(name)
    return reference.temporal(w, lm_kwargs(name) | {"context": context}, reference.embed(w, columns))


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 8, 13, 31, 32])
@pytest.mark.parametrize("name", NAMES)
def test_every_chunk_and_every_wrap(name, chunk):
    """Three times around the ring, whatever number of columns a pass takes."""
    context = lm_kwargs(name)["context"]
    columns = random_columns(name, 3 * context + 5)
    probe = model(name).probe_temporal(columns, chunk=chunk)
    expected = naive_hidden(name, columns, context)
    assert relative_error(probe["hidden"], expected) < 2e-6
    worst = max(relative_error(a, b) for a, b in zip(probe["hidden"], expected, strict=True))
    assert worst < 1e-5  # each column by itself: a wrong window at the wrap cannot hide in the mean


@pytest.mark.parametrize("context", [4, 9, 10, 33])
def test_other_contexts(context):
    other = load("nano", context=context)
    try:
        columns = random_columns("nano", 40, seed=context)
        for chunk in (1, 7, 8, 32):
            hidden = other.probe_temporal(columns, chunk=chunk)["hidden"]
            assert relative_error(hidden, naive_hidden("nano", columns, context)) < 2e-6
    finally:
        other.unload()


@settings(max_examples=40)
@given(context=st.integers(2, 40), chunk=st.integers(1, 32), count=st.integers(1, 90), seed=st.integers(0, 3))
def test_any_context_any_chunk_any_length(context, chunk, count, seed):
    """Each column by itself is what the full table says, wherever the ring wraps within a chunk."""
    other = load("nano", context=context)
    try:
        columns = random_columns("nano", count, seed)
        hidden = other.probe_temporal(columns, chunk=chunk)["hidden"]
        expected = naive_hidden("nano", columns, context)
        assert max(relative_error(a, b) for a, b in zip(hidden, expected, strict=True)) < 1e-5
    finally:
        other.unload()


def test_the_window_is_one_key_short_of_the_context():
    """The test above can tell the right window from its neighbours."""
    context = lm_kwargs("nano")["context"]
    columns = random_columns("nano", 40)
    hidden = model("nano").probe_temporal(columns)["hidden"]
    for wrong in (context - 1, context + 1):
        assert relative_error(hidden, naive_hidden("nano", columns, wrong)) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_what_left_the_window_is_forgotten(name):
    """Changing the first column changes nothing once it is out of reach of every layer."""
    kwargs = lm_kwargs(name)
    reach = kwargs["num_layers"] * (kwargs["context"] - 2)
    columns = random_columns(name, reach + 6)
    other = columns.copy()
    other[:, 0] = random_columns(name, 1, seed=9)[:, 0]
    a, b = (model(name).probe_temporal(c, chunk=3)["hidden"] for c in (columns, other))
    assert not np.array_equal(a[reach], b[reach])
    assert np.array_equal(a[reach + 1 :], b[reach + 1 :])


@pytest.mark.parametrize("name", NAMES)
def test_the_future_changes_nothing(name):
    columns = random_columns(name, 24)
    other = columns.copy()
    other[:, 13:] = random_columns(name, 11, seed=4)
    a, b = (model(name).probe_temporal(c, chunk=8)["hidden"] for c in (columns, other))
    assert relative_error(a[:13], b[:13]) < 1e-6
    assert relative_error(a[13:], b[13:]) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_prefill_chunks_lead_to_the_same_conversation(name):
    """A long prompt, beyond the context, in chunks of 1 to 32: same ring, same tokens afterwards."""
    text = np.random.default_rng(3).integers(4, lm_kwargs(name)["text_card"], 2 * lm_kwargs(name)["context"]).tolist()
    runs = []
    for chunk in (1, 2, 3, 5, 8, 13, 31, 32):
        session = prompted(model(name), name, text_tokens=text, chunk=chunk)
        session.set_probing(True)
        tokens = talk(session, user_codes(name)[:4])
        runs.append((session.position, tokens, session.probe()["hidden"]))
    for position, tokens, hidden in runs[1:]:
        assert position == runs[0][0]
        assert np.array_equal(tokens, runs[0][1])
        assert relative_error(hidden, runs[0][2]) < 5e-6


@pytest.mark.parametrize("chunk", [0, 33, -1])
def test_chunks_out_of_range(chunk):
    session = model("nano").session()
    with pytest.raises(ValueError, match="chunk"):
        session.prompt(chunk=chunk)
    with pytest.raises(ValueError, match="chunk"):
        model("nano").probe_temporal(random_columns("nano", 2), chunk=chunk)


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_reads_what_the_golden_prompt_reads(name):
    """One long teacher-forced pass over a conversation's columns gives the hidden states of its steps."""
    data = golden(name)
    session = prompted(model(name), name)
    session.set_probing(True)
    seen = []
    for codes in user_codes(name):
        session.step_codes(codes, decode=False)
        seen.append(session.probe()["hidden"])
    assert relative_error(np.stack(seen), data["lmgen.hidden"][-len(seen) :]) < 1e-5
