"""random:tiny says the same again for the same seed, audio, voice and prompt, and something else for any other.

No hash is written down here: float32 sums round differently from one CPU to the next (vector width, order of the
threads' parts), one flipped token changes all that follows, and so a hash would only test which machine this is.
"""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

import personaplex

QUESTION = np.random.default_rng(2).uniform(-0.2, 0.2, 5 * 1920).astype(np.float32), 24000
OTHER_QUESTION = np.random.default_rng(3).uniform(-0.2, 0.2, 5 * 1920).astype(np.float32), 24000
OPTIONS = {"voice": "NATF1", "system_prompt": "You sell fish.", "seed": 11, "max_steps": 10}


def digest(model, audio=QUESTION, **options):
    """SHA-256 of the answer as 16-bit PCM."""
    samples = model.respond(audio, **OPTIONS | options).audio.samples
    assert samples.shape == (15 * 1920,)
    return hashlib.sha256(np.round(samples * 32767).astype("<i2").tobytes()).hexdigest()


@pytest.fixture(scope="module")
def expected(tiny_model):
    return digest(tiny_model)


def test_the_same_again(tiny_model, expected):
    assert digest(tiny_model) == expected
    other = personaplex.load("random:tiny", prompt_cache="off")  # its weights drawn, its prompt computed anew
    try:
        assert digest(other) == expected
    finally:
        other.unload()


def test_the_same_in_another_process(expected):
    program = "import personaplex, test_random_tiny as t; print(t.digest(personaplex.load('random:tiny')))"
    folder = __file__.rpartition("/")[0]
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == f"{expected}\n"


@pytest.mark.parametrize(
    "change",
    [
        {"audio": OTHER_QUESTION},
        {"voice": "NATF2"},
        {"voice": "none"},
        {"system_prompt": "You sell meat."},
        {"seed": 12},
        {"greedy": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_something_else_for_anything_else(tiny_model, expected, change):
    assert digest(tiny_model, **change) != expected
