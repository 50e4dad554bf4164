# tests/python/test_depformer.py: the depformer against the numpy reference; half its steps are enough for the agent.
import numpy as np
import pytest
import reference
from goldens import NAMES, golden, lm_kwargs, lm_weights, model, prompted, relative_error, talk, user_codes


def steps_of(name: str) -> tuple[int, int]:
    """(the agent's rows only, every row)"""
    n_q = lm_kwargs(name)["n_q"]
    return n_q // 2, n_q


def random_case(name: str, n: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kwargs, rng = lm_kwargs(name), np.random.default_rng(1)
    hidden = rng.standard_normal((n, kwargs["dim"])).astype(np.float32)
    text = rng.integers(0, kwargs["text_card"] + 1, n).astype(np.int32)
    return hidden, text, rng.integers(0, kwargs["card"] + 1, (n, steps)).astype(np.int32)


@pytest.mark.parametrize("which", [0, 1], ids=["half", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_logits(name, which):
    steps = steps_of(name)[which]
    hidden, text, given = random_case(name, 5, steps)
    logits = model(name, depformer_steps=steps).probe_depformer(hidden, text, given)
    expected = [
        reference.depformer(lm_weights(name), lm_kwargs(name), hidden[i], text[i], given[i], steps) for i in range(5)
    ]
    assert logits.shape == (5, steps, lm_kwargs(name)["card"])
    assert relative_error(logits, np.stack(expected)) < 2e-6


@pytest.mark.parametrize("name", NAMES)
def test_only_the_very_last_step_misses_step_0(name):
    """Step n_q - 1 does not see step 0; with half of the steps every step sees all before it."""
    half, every = steps_of(name)
    w, kwargs = lm_weights(name), lm_kwargs(name)
    hidden, text, given = random_case(name, 1, every)
    for steps in (half, every):
        logits = model(name, depformer_steps=steps).probe_depformer(hidden, text, given[:, :steps])[0]
        no_quirk = reference.depformer(w, kwargs | {"n_q": every + 1}, hidden[0], text[0], given[0], steps)
        differs = [relative_error(a, b) > 1e-3 for a, b in zip(logits, no_quirk, strict=True)]
        assert differs == [False] * (steps - 1) + [steps == every]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_sees_only_the_past(name):
    steps = steps_of(name)[1]
    hidden, text, given = random_case(name, 1, steps)
    base = model(name, depformer_steps=steps).probe_depformer(hidden, text, given)[0]
    for k in range(steps):
        other = given.copy()
        other[0, k] = (other[0, k] + 1) % lm_kwargs(name)["card"]
        logits = model(name, depformer_steps=steps).probe_depformer(hidden, text, other)[0]
        assert np.array_equal(logits[: k + 1], base[: k + 1])
        if k + 1 < steps:
            assert not np.array_equal(logits[k + 1], base[k + 1])


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_steps_give_the_agent_the_same_tokens(name):
    runs = [talk(prompted(model(name, depformer_steps=steps), name), user_codes(name)) for steps in steps_of(name)]
    assert np.array_equal(runs[0], runs[1])
    assert np.array_equal(runs[0], golden(name)["lmgen.out"])


@pytest.mark.parametrize("name", NAMES)
def test_the_default_is_half(name):
    assert model(name).config["depformer_steps"] == steps_of(name)[0]


def test_other_numbers_of_steps_are_refused():
    from goldens import load

    for steps in (1, 7, 9, 17, -1):
        with pytest.raises(ValueError, match="depformer_steps"):
            load("nano", depformer_steps=steps)
