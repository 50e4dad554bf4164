"""Finding and downloading models, against a local hub; every way it can fail names the next step."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import COMMIT, HubServer

from personaplex import hub
from personaplex.errors import HubError, PersonaplexError

FILES = {
    "config.json": b"{}",
    "temporal.safetensors": os.urandom(1 << 20),
    "tokenizer_spm_32k_3.model": b"model",
    "voices/NATM0.safetensors": b"voice",
    "README.md": b"not needed",
    "demo/clip.wav": b"not needed either",
}

INSTEAD = "--model tiny"  # what else there is, named and never taken unasked

UNREACHABLE = "http://127.0.0.1:9"  # "discard": nobody listens there

PROGRAM = """
import json, sys
from personaplex import hub
from personaplex.errors import HubError
try:
    found = hub.resolve(sys.argv[1], *sys.argv[2:])
    print(json.dumps([found.name, str(found.directory), found.revision]))
except HubError as error:
    print(json.dumps(str(error)))
"""


def resolve(tmp_path, endpoint, *arguments, **environment):
    """hub.resolve in a process of its own, as huggingface_hub reads its environment once: source or error."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "HF_HUB_ETAG_TIMEOUT": "5", "NO_PROXY": "*", **settings, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout), run.stderr


@pytest.fixture
def server():
    with HubServer(FILES, revisions=("main", "v1")) as running:
        yield running


def names(folder):
    return sorted(os.path.relpath(os.path.join(d, f), folder) for d, _, files in os.walk(folder) for f in files)


def test_downloads_only_what_is_needed_and_then_nothing(tmp_path, server):
    (name, folder, revision), stderr = resolve(tmp_path, server.endpoint, "owner/name")
    assert (name, revision) == ("owner/name", COMMIT)
    assert names(folder) == sorted(n for n in FILES if "needed" not in FILES[n].decode("latin-1"))
    for wanted in names(folder):
        with open(os.path.join(folder, wanted), "rb") as file:
            assert file.read() == FILES[wanted]
    assert "%" in stderr  # the hub's own progress bars
    server.requests.clear()
    assert resolve(tmp_path, server.endpoint, "owner/name")[0][1] == folder
    assert not [r for r in server.requests if "/resolve/" in r]


@pytest.mark.parametrize("arguments", [("owner/name@v1",), ("owner/name", "v1"), ("owner/name@v1", "v1")])
def test_a_revision_is_pinned(tmp_path, server, arguments):
    (name, _, revision), _ = resolve(tmp_path, server.endpoint, *arguments)
    assert (name, revision) == ("owner/name@v1", COMMIT)
    assert not [r for r in server.requests if "/main" in r]


def test_a_cached_model_needs_no_network(tmp_path, server):
    (_, folder, _), _ = resolve(tmp_path, server.endpoint, "owner/name")
    assert resolve(tmp_path, UNREACHABLE, "owner/name")[0][1] == folder
    assert resolve(tmp_path, server.endpoint, "owner/name", HF_HUB_OFFLINE="1")[0][1] == folder
    server.failing = 500
    assert resolve(tmp_path, server.endpoint, "owner/name")[0][1] == folder


def test_gated(tmp_path, server):
    server.gated = True
    message, _ = resolve(tmp_path, server.endpoint, "owner/name")
    assert "is gated" in message
    assert f"{server.endpoint}/owner/name" in message
    assert "hf auth login" in message
    assert INSTEAD in message


def test_missing_or_private(tmp_path, server):
    server.hidden = True
    message, _ = resolve(tmp_path, server.endpoint, "owner/name")
    assert "there is no model owner/name" in message
    assert INSTEAD in message
    assert "hf auth login" in message


def test_missing_revision(tmp_path, server):
    message, _ = resolve(tmp_path, server.endpoint, "owner/name", "v9")
    assert "has no revision 'v9'" in message


def test_offline_without_cache(tmp_path, server):
    message, _ = resolve(tmp_path, server.endpoint, "owner/name", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in message
    assert INSTEAD in message
    assert server.requests == []


def test_no_network_without_cache(tmp_path):
    message, _ = resolve(tmp_path, UNREACHABLE, "owner/name")
    assert "cannot be reached" in message
    assert "check the network" in message
    assert INSTEAD in message


def test_a_failing_hub(tmp_path, server):
    server.failing = 503
    message, _ = resolve(tmp_path, server.endpoint, "owner/name")
    assert "cannot be reached" in message


def test_a_cut_download_says_so_and_is_finished_later(tmp_path, server):
    server.broken_after = 300_000
    message, _ = resolve(tmp_path, server.endpoint, "owner/name")
    assert message.startswith("[load] downloading owner/name failed")
    assert "Run this again; files that have arrived are kept." in message
    offline, _ = resolve(tmp_path, server.endpoint, "owner/name", HF_HUB_OFFLINE="1")
    assert "is not complete" in offline or "did not finish" in offline
    server.broken_after = None
    arrived = {name for name in FILES if list((tmp_path / "hf").rglob(f"snapshots/*/{name}"))}
    assert "temporal.safetensors" not in arrived
    server.requests.clear()
    (_, folder, _), _ = resolve(tmp_path, server.endpoint, "owner/name")
    with open(os.path.join(folder, "temporal.safetensors"), "rb") as file:
        assert file.read() == FILES["temporal.safetensors"]
    assert not [r for r in server.requests for name in arrived if r.endswith(f"/{name}")]


def test_a_repository_that_is_no_model(tmp_path):
    with HubServer({"README.md": b"hello", "config.json": b"{}"}) as server:
        message, _ = resolve(tmp_path, server.endpoint, "owner/name")
    assert "no *.safetensors" in message


def test_a_full_disk(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(HubError, match=r"is full; free space or set HF_HOME"):
        hub.resolve("owner/name")


def test_an_unforeseen_error_is_still_ours(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(HubError, match=r"failed: RuntimeError: first line Run this again") as raised:
        hub.resolve("owner/name")
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert issubclass(HubError, PersonaplexError)


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./missing", "/missing/model", "~/missing", "a b/c", "-a/b", ""])
def test_wrong_names_and_paths(monkeypatch, tmp_path, name):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match="neither a directory nor a model id"):
        hub.resolve(name)


def test_directories_and_random_models(tmp_path):
    assert hub.resolve(tmp_path) == hub.ModelSource(str(tmp_path), tmp_path)
    assert hub.resolve("random:tiny") == hub.ModelSource("random:tiny", None)
    assert hub.resolve("random:7b").core_source == "random:7b"
    with pytest.raises(HubError, match="no random model"):
        hub.resolve("random:huge")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(HubError, match="is a file"):
        hub.resolve(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="goes with a model of the hub"):
        hub.resolve(tmp_path, "main")
    with pytest.raises(ValueError, match="two revisions"):
        hub.resolve("owner/name@a", "b")


def test_tiny_is_the_model_of_the_package(monkeypatch, tmp_path):
    """A directory of that name in the current folder is `./tiny`, and the hub is not asked."""
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    folder = Path(hub.__file__).parent / "tiny"
    assert hub.resolve("tiny") == hub.ModelSource("tiny", folder)
    assert "closed set of questions" in hub.resolve("tiny").about
    for written in ("./tiny", Path("tiny")):
        assert hub.resolve(written).directory == Path("tiny")
        assert hub.resolve(written).name == "./tiny"
        assert hub.resolve(written).about is None
    with pytest.raises(ValueError, match="goes with a model of the hub"):
        hub.resolve("tiny", "main")
    with pytest.raises(HubError, match=r"did you mean tiny\?"):
        hub.resolve("Tiny")


def test_the_default_is_documented():
    assert next(iter(hub.KNOWN_MODELS)) == hub.DEFAULT_MODEL == "aufklarer/PersonaPlex-7B-MLX-4bit"
    assert "CC-BY-NC-4.0" in hub.KNOWN_MODELS[hub.DEFAULT_MODEL]
