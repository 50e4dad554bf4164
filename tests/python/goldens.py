# tests/python/goldens.py: the committed golden directories and the models made of them, shared by the tests.
from __future__ import annotations

import atexit
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import check  # noqa: E402
import folder  # noqa: E402

from personaplex import _core  # noqa: E402

DATA = GOLDEN / "data"
NAMES = sorted(path.name for path in DATA.iterdir() if path.is_dir())
PAD = 3
SPACER_FRAMES = 6
GREEDY = _core.Sampling(text_temperature=0, audio_temperature=0)
relative_error = check.relative_error


@cache
def golden(name: str) -> folder.Golden:
    return folder.load(DATA / name)


@cache
def checkpoint(name: str) -> str:
    """A checkpoint directory of a golden model, gone when the tests end."""
    directory = tempfile.TemporaryDirectory(prefix="personaplex-test-")
    atexit.register(directory.cleanup)
    return str(folder.checkpoint(golden(name), Path(directory.name) / name))


def load(name: str, **options: object) -> _core.Model:
    """A model of one's own, float32 on the CPU unless told otherwise."""
    return _core.Model(checkpoint(name), **{"device": "cpu", "engine": "graph", "dtype": "float32", **options})


@cache
def model(name: str, **options: object) -> _core.Model:
    """The same, shared: not to be unloaded."""
    loaded = load(name, **options)
    atexit.register(loaded.unload)
    return loaded


@cache
def lm_weights(name: str) -> dict[str, np.ndarray]:
    return folder.lm_weights(golden(name))


@cache
def mimi_weights(name: str) -> dict[str, np.ndarray]:
    return folder.mimi_weights(golden(name))


def lm_kwargs(name: str) -> dict:
    return golden(name).manifest["lm_kwargs"]


def user_codes(name: str) -> list[np.ndarray]:
    """The golden user's codes, one [Q] array a frame."""
    return [np.ascontiguousarray(codes) for codes in golden(name)["lmgen.user_codes"].T]


def user_pcm(name: str) -> np.ndarray:
    """[U, frame] the golden user's audio."""
    data = golden(name)
    return data["lmgen.user_pcm"].reshape(data["lmgen.user_codes"].shape[1], -1)


def prompted(of: _core.Model, name: str, sampling: _core.Sampling = GREEDY, seed: int = 0, **prompt: object):
    """A session after the golden prompt, with the golden voice fed unless another is given."""
    data = golden(name)
    defaults = {"voice_codes": data["voice.codes"], "text_tokens": data["lmgen.text_prompt"].tolist()}
    session = of.session(sampling, seed)
    session.prompt(**{**defaults, **prompt})
    return session


def talk(session: _core.Session, frames: list[np.ndarray]) -> np.ndarray:
    """[frames, rows] tokens that the session answers to the user's codes."""
    return np.stack([session.step_codes(codes, decode=False).tokens for codes in frames])
