# tests/python/test_golden_reference.py: the numpy reference against the golden data, without the core.
import numpy as np
import pytest
import reference
from goldens import NAMES, PAD, SPACER_FRAMES, golden, lm_kwargs, lm_weights, mimi_weights, relative_error

VOICE, USER = 0, 4


@pytest.mark.parametrize("name", NAMES)
def test_temporal(name):
    data, w, kwargs = golden(name), lm_weights(name), lm_kwargs(name)
    embedded = reference.embed(w, data["temporal.tokens"])
    assert relative_error(embedded, data["temporal.embeddings"]) < 1e-6
    hidden = reference.temporal(w, kwargs, embedded)
    assert relative_error(hidden, data["temporal.hidden"]) < 1e-6
    assert relative_error(hidden @ w["text_linear.weight"].T, data["temporal.text_logits"]) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_depformer(name):
    data, w, kwargs = golden(name), lm_weights(name), lm_kwargs(name)
    for steps in (kwargs["n_q"] // 2, kwargs["n_q"]):
        for i, hidden in enumerate(data["depformer.hidden"]):
            logits = reference.depformer(
                w, kwargs, hidden, data["depformer.text"][i], data["depformer.given"][i], steps
            )
            assert relative_error(logits, data["depformer.logits"][i, :steps]) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_data_wraps_every_ring(name):
    data = golden(name)
    codec_positions = data["mimi.enc_seanet"].shape[1]
    assert codec_positions > data.manifest["mimi_kwargs"]["transformer"]["context"]
    assert len(data["temporal.hidden"]) > lm_kwargs(name)["context"]
    assert len(data["lmgen.hidden"]) > lm_kwargs(name)["context"]


@pytest.mark.parametrize("name", NAMES)
def test_rvq(name):
    data = golden(name)
    codes = reference.rvq_codes(data["mimi.latent_stream"].astype(np.float64), mimi_weights(name), data.codebooks)
    assert np.array_equal(codes, data["mimi.codes_stream"])


@pytest.mark.parametrize("kind", [("audio", 0.8), ("text", 0.7)])
@pytest.mark.parametrize("name", NAMES)
def test_sampling(name, kind):
    data, (stream, temperature) = golden(name), kind
    q = data[f"sampling.{stream}.q"]
    for logits, places, token in zip(
        data[f"sampling.{stream}.logits"], q, data[f"sampling.{stream}.token"], strict=True
    ):
        noise = np.ones(len(logits))
        noise[np.argsort(-logits, kind="stable")[: len(places)]] = places
        assert reference.sample_with_noise(logits, noise, temperature, len(places)) == token


@pytest.mark.parametrize("name", NAMES)
def test_grid(name):
    """Every cell and every forced flag after every step, from the tokens that the golden run predicted."""
    data, kwargs = golden(name), lm_kwargs(name)
    sine, silence = data["lmgen.sine_tokens"], data["lmgen.silence_tokens"]
    grid = reference.Grid(kwargs["delays"], kwargs["text_card"], kwargs["card"])
    start = [kwargs["card"]] * (kwargs["n_q"] // 2)
    spoken = int((data["lmgen.phase"] == VOICE).sum())
    texts = [PAD] * SPACER_FRAMES + data["lmgen.text_prompt"].tolist() + [PAD] * SPACER_FRAMES
    frames = [(start, start, PAD)] * spoken + [(sine, silence, text) for text in texts]
    frames += [(codes, None, None) for codes in data["lmgen.user_codes"].T]
    outputs = []
    for i, (user, agent, text) in enumerate(frames):
        grid.put(user, agent, text)
        target, forced = grid.target
        assert np.array_equal(grid.column, data["lmgen.input"][i])
        assert np.array_equal(forced, data["lmgen.provided"][i])
        assert np.array_equal(target[forced], data["lmgen.target"][i][forced])
        grid.finish([data["lmgen.text_next"][i], *data["lmgen.sampled_audio"][i]])
        tokens, flags = grid.ring()
        assert np.array_equal(tokens, data["lmgen.cache"][i])
        assert np.array_equal(flags, data["lmgen.provided_after"][i])
        if i == spoken - 1:
            grid.load_ring(data["voice.cache"][0])
            assert np.array_equal(grid.ring()[0], data["lmgen.cache_after_voice"])
        if data["lmgen.phase"][i] == USER:
            outputs.append(grid.output())
    assert np.array_equal(np.stack(outputs), data["lmgen.out"])
