# tests/python/test_sampling.py: Philox vectors, the exponential race, top-k, and the noise that a session's steps use.
import math

import numpy as np
import pytest
import reference
from goldens import NAMES, lm_kwargs, model, prompted, user_codes
from hypothesis import given, settings
from hypothesis import strategies as st

from personaplex import _core

ALL = 0xFFFFFFFF

# Philox 4x32-10 known answers, published with Random123 (kat_vectors): counter, key, output.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ALL, ALL, ALL, ALL), (ALL, ALL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, words):
    assert _core.philox(counter, key) == words
    assert reference.philox(counter, key) == words


word = st.integers(0, ALL)


@given(st.tuples(word, word, word, word), st.tuples(word, word))
def test_philox_equals_the_reference(counter, key):
    assert _core.philox(counter, key) == reference.philox(counter, key)


@settings(max_examples=60)
@given(
    n=st.integers(1, 300),
    temperature=st.sampled_from([0.0, 0.3, 0.7, 0.8, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 2, 25, 250, 1000]),
    seed=st.integers(0, 2**64 - 1),
    stream=st.integers(0, 16),
    frame=st.integers(0, 2**40),
)
def test_full_sampling(n, temperature, top_k, seed, stream, frame):
    logits = (3 * np.random.default_rng([n, stream]).standard_normal(n)).astype(np.float32)
    expected = reference.sample(logits, temperature, top_k, seed, stream, frame)
    assert _core.sample(logits, temperature, top_k, seed, stream, frame) == expected


def test_every_part_of_the_counter_matters():
    logits = np.zeros(2000, np.float32)
    base = (1, 2, 3)
    others = [(1 + 2**32, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 2, 3 + 2**32)]
    tokens = [_core.sample(logits, 1.0, 0, *args) for args in [base, *others]]
    assert len(set(tokens)) == len(tokens)
    assert tokens == [reference.sample(logits, 1.0, 0, *args) for args in [base, *others]]


@pytest.mark.parametrize(
    ("seed", "frame", "index", "q"),
    [(1, 245165, 2, -math.log1p(-(2.0**-25))), (1, 270842, 0, 25 * math.log(2))],
    ids=["largest u", "smallest u"],
)
def test_extreme_noise(seed, frame, index, q):
    """The largest u is 1 - 2**-25: in float32 it would round to 1, and q to 0 or below."""
    noise = reference.exponential_noise(8, seed, 0, frame)
    assert noise[index] == pytest.approx(q, rel=1e-6)
    for logits in (np.zeros(8, np.float32), np.linspace(-4, 4, 8, dtype=np.float32)):
        for top_k in (0, 8, 5):
            expected = reference.sample(logits, 1.0, top_k, seed, 0, frame)
            assert _core.sample(logits, 1.0, top_k, seed, 0, frame) == expected


def race(logits, noise, temperature, top_k):
    return _core.sample_with_noise(np.asarray(logits, np.float32), np.asarray(noise, np.float32), temperature, top_k)


def test_greedy_takes_the_first_of_the_largest():
    logits = np.array([0, 3, 1, 3, 2], np.float32)
    assert _core.sample(logits, 0.0, 25, 1, 0, 0) == 1
    assert race(logits, np.full(5, 1e9), 0.0, 2) == 1


def test_top_1_is_greedy_whatever_the_noise():
    for frame in range(50):
        assert _core.sample(np.array([0, 3, 1, 2.9, 2], np.float32), 5.0, 1, 9, 0, frame) == 1


def test_top_k_of_everything_is_no_limit():
    logits = np.random.default_rng(0).standard_normal(40).astype(np.float32)
    for frame in range(40):
        free = _core.sample(logits, 1.5, 0, 3, 0, frame)
        assert free == _core.sample(logits, 1.5, 40, 3, 0, frame) == _core.sample(logits, 1.5, 1000, 3, 0, frame)


def test_the_top_k_only():
    logits = np.random.default_rng(1).standard_normal(60).astype(np.float32)
    best = set(np.argsort(-logits)[:7].tolist())
    tokens = {_core.sample(logits, 10.0, 7, 5, 0, frame) for frame in range(300)}
    assert tokens == best


def test_ties_at_the_edge_of_the_top_k_go_to_the_lowest_index():
    """Three equal logits compete for two places: the last of them is out, even with the best noise."""
    logits, noise = [1, 1, 1, 0], [1, 1, 1e-6, 1]
    assert race(logits, noise, 1.0, 2) == 0
    assert race(logits, noise, 1.0, 3) == 2


def test_ties_of_the_race_go_to_the_lowest_index():
    assert race([2, 1, 2, 2], [1, 1, 1, 1], 1.0, 0) == 0
    assert race([0, 2, 1, 2], [9, 1, 1, 1], 1.0, 3) == 1


def test_large_logits_do_not_overflow():
    assert race([1e4, 1e4 - 1, -1e4], [10, 1, 1], 1.0, 0) == 1
    assert race([-1e4, -1e4 - 1, -2e4], [1, 1, 1], 0.01, 0) == 0


@pytest.mark.parametrize("top_k", [0, 6])
def test_distribution(top_k):
    """Chi-square of 4000 draws against softmax(logits / T) over the top k."""
    logits = np.random.default_rng(2).standard_normal(10).astype(np.float32)
    p = np.exp(logits.astype(np.float64) / 0.8)
    if top_k:
        p[np.argsort(-logits)[top_k:]] = 0
    p /= p.sum()
    draws = 4000
    counts = np.bincount([_core.sample(logits, 0.8, top_k, 77, 4, frame) for frame in range(draws)], minlength=10)
    assert counts[p == 0].sum() == 0
    kept = p > 0
    chi_square = np.sum((counts[kept] - draws * p[kept]) ** 2 / (draws * p[kept]))
    assert chi_square < 30  # 9 degrees of freedom: beyond 30 in 4 of 10000 seeds; the seed is fixed


@pytest.mark.parametrize(("engine", "dtype"), [("graph", "float32"), ("fused", "auto")])
@pytest.mark.parametrize("name", NAMES)
def test_a_session_draws_by_this_rule(name, engine, dtype):
    """stream = grid row, frame = index of the step call, key = the session's seed."""
    sampling = _core.Sampling(text_temperature=0.9, text_top_k=11, audio_temperature=1.1, audio_top_k=20)
    seed = 0x1234_5678_9ABC
    every = lm_kwargs(name)["n_q"]
    session = prompted(model(name, depformer_steps=every, engine=engine, dtype=dtype), name, sampling, seed)
    session.set_probing(True)
    max_delay = max(lm_kwargs(name)["delays"])
    grid = None
    for frame, codes in enumerate(user_codes(name)):
        session.step_codes(codes, decode=False)
        probe = session.probe()
        drawn = [reference.sample(probe["text_logits"], 0.9, 11, seed, 0, frame)]
        drawn += [reference.sample(row, 1.1, 20, seed, k + 1, frame) for k, row in enumerate(probe["audio_logits"])]
        grid = session.grid_ring()[0]
        column = (session.position) % (max_delay + 3)  # the column that the step predicted
        agent = range(1, 1 + every // 2) if frame >= max_delay else [0]  # the spacer still forces delayed rows
        for row in [0, *agent]:
            assert grid[row, column] == drawn[row]


@pytest.mark.parametrize(
    "options",
    [{"text_temperature": -1}, {"audio_temperature": math.nan}, {"text_temperature": math.inf}, {"audio_top_k": -1}],
    ids=str,
)
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        model("nano").session(_core.Sampling(**options))


def test_bad_logits_are_refused():
    with pytest.raises(ValueError, match=r"^\[sample"):
        _core.sample(np.zeros(0, np.float32), 1.0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match=r"^\[sample"):
        race([1, 2, 3], [1, 2], 1.0, 0)
