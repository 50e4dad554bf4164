"""Shared by all tests: caches in a temporary directory, one tiny random model, and hypothesis without deadlines."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before anything imports huggingface_hub, which reads its environment once. Lives until the interpreter exits.
_caches = tempfile.TemporaryDirectory(prefix="personaplex-tests-", ignore_cleanup_errors=True)
os.environ["PERSONAPLEX_CACHE"] = str(Path(_caches.name) / "personaplex")
os.environ["HF_HOME"] = str(Path(_caches.name) / "huggingface")
for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HUGGINGFACE_HUB_CACHE"):
    os.environ.pop(name, None)

# A shell's background jobs ignore Ctrl-C, and so would what is tested here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))  # check, folder, tensors, weights

import personaplex  # noqa: E402

# A shared machine makes any one example slow; CI tries the same examples every time.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The source tree these tests came with."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny_model() -> Iterator[personaplex.Model]:
    """personaplex.load("random:tiny"), shared: tests take sessions from it and never unload it."""
    model = personaplex.load("random:tiny")
    yield model
    model.unload()
