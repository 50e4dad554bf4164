"""docs/errors.md: every row of its table happens as written: the class, and the message."""

import builtins
import errno
import importlib.resources
import json
import logging
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import checkpoints
import huggingface_hub
import numpy as np
import pt_files
import pytest
from fakes import FakeModel, make_model
from hub_server import HubServer
from test_guard import pretend, pretend_installed
from test_hub import UNREACHABLE, resolve
from test_voices import tar_gz

import personaplex
from personaplex import _core, _guard, hub, pt
from personaplex.text import Tokenizer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"


def rows(columns):
    """The tables of the page that have so many columns: row -> the other cells."""
    lines = re.findall(r"^\| ([a-z].*) \|$", PAGE.read_text("utf-8"), re.M)
    split = [line.split(" | ") for line in lines]
    return {cells[0]: cells[1:] for cells in split if len(cells) == columns and cells[0] != "row"}


ROWS, WARNINGS = rows(5), rows(3)
FRAME = np.zeros(1920, np.float32)


def respond(audio=(FRAME, 24000), directory=None, **options):
    make_model(directory=directory).respond(audio, **{"voice": "none", "max_steps": 0, **options})


def with_file(data, suffix, use):
    def case(tmp_path):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(data)
        use(path)

    return case


def voice_shape(tmp_path):
    tensors = {"embeddings": np.zeros((3, 1, 1, 16), np.float32), "cache": np.zeros((1, 17, 4), np.int64)}
    _core.write_tensors(str(tmp_path / "v.safetensors"), tensors, {})
    respond(voice=tmp_path / "v.safetensors")


def voice_archive(tmp_path):
    (tmp_path / "voices.tgz").write_bytes(tar_gz([("voices/../../NATM0.pt", b"x")]))
    respond(voice="NATM0", directory=tmp_path)


def step_closed(tmp_path):
    session = make_model().session(voice="none")
    session.close()
    session.step(FRAME)


def step_busy(tmp_path):
    with make_model(FakeModel(step_seconds=0.3)).session(voice="none") as session:
        thread = threading.Thread(target=session.step, args=(FRAME,))
        thread.start()
        while not session._busy.locked():
            pass
        try:
            session.step(FRAME)
        finally:
            thread.join()


def stream_kept(tmp_path):
    with make_model().respond_stream((FRAME, 24000), voice="none") as generation:
        generation.response()


def load_shipped(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.resources, "files", lambda package: tmp_path)
        personaplex.load("tiny")


def hub_refused(error):
    def case(tmp_path):
        def refuse(*_, **__):
            raise error

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(huggingface_hub, "snapshot_download", refuse)
            hub.resolve("owner/name")

    return case


def import_mlx(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch, "linux")
        pretend_installed(patch, {"mlx": "0.31.0"})
        _guard._check_versions("0.32.4")


def device_absent(tmp_path):
    absent = next(name for name in ("cuda", "metal") if not _core.devices()[name])
    personaplex.load("random:tiny", device=absent)


def device_unloaded(tmp_path):
    model = personaplex.load("random:tiny")
    model.unload()
    model.session()


def device_forked(tmp_path):
    """In processes of their own: pytest itself has threads, which do not survive a fork."""
    program = """
        import os, personaplex
        model = personaplex.load("random:tiny")
        if os.fork() == 0:
            try:
                model.session()
            except personaplex.DeviceError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)]
    got = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    raise personaplex.DeviceError(got)


def weights_config(tmp_path):
    checkpoints.nvidia(tmp_path / "model", num_layers=0)
    personaplex.load(tmp_path / "model")


def weights_missing_keys(tmp_path):
    """A layer more than there is, so many tensors are missing; the message names 40 of them at most."""
    checkpoints.nvidia(tmp_path / "model", num_layers=100)
    with pytest.raises(personaplex.WeightsError, match=r"(?m)^  and \d+ more$") as raised:
        personaplex.load(tmp_path / "model")
    assert str(raised.value).count("the key is missing") == 40
    raise raised.value


def weights_cut(tmp_path):
    path = checkpoints.nvidia(tmp_path / "model") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    personaplex.load(tmp_path / "model")


def bits_stored(tmp_path):
    personaplex.load(checkpoints.mlx(tmp_path / "model", bits=8), bits=4)


def hub_case(*arguments, endpoint=None, offline=False, **attributes):
    """A download that fails in a process of its own, raised again here."""

    def case(tmp_path):
        files = {"config.json": b"{}", "model.safetensors": bytes(200_000)}
        with HubServer(files) as server:
            for name, value in attributes.items():
                setattr(server, name, value)
            environment = {"HF_HUB_OFFLINE": "1"} if offline else {}
            got, _ = resolve(tmp_path, endpoint or server.endpoint, "owner/name", *arguments, **environment)
        assert isinstance(got, str), got  # a message; a list would be a model
        raise personaplex.HubError(got)

    return case


CASES = {
    "audio-missing": lambda tmp_path: respond(tmp_path / "none.wav"),
    "audio-format": with_file(b"text", ".wav", respond),
    "audio-empty": lambda _: respond((FRAME[:0], 24000)),
    "audio-nan": lambda _: respond((FRAME * np.nan, 24000)),
    "audio-rate": lambda _: respond(FRAME),
    "audio-type": lambda _: respond((FRAME.astype(np.int64), 24000)),
    "audio-suffix": lambda tmp_path: personaplex.Audio(FRAME).write(tmp_path / "answer.docx"),
    "prompt-file": lambda tmp_path: respond(system_prompt=f"@{tmp_path}/none.txt"),
    "prompt-text": with_file(b"\xff", ".txt", lambda path: respond(system_prompt=f"@{path}")),
    "prompt-long": lambda _: respond(system_prompt="word " * 4000),
    "voice-unknown": lambda _: respond(voice="NATX9"),
    "voice-missing": lambda tmp_path: respond(voice="NATM0", directory=tmp_path),
    "voice-shape": voice_shape,
    "voice-code": with_file(
        pt_files.archive({"v/data.pkl": b"\x80\x02cos\nsystem\n."}), ".pt", lambda path: pt.read_voice(path)
    ),
    "voice-archive": voice_archive,
    "voice-short": lambda _: respond(voice=(FRAME, 24000)),
    "voice-silent": lambda _: respond(voice=(np.zeros(24000), 24000)),
    "sampling-range": lambda _: respond(text_temperature=-1),
    "steps-range": lambda _: respond(max_steps=-1),
    "load-range": lambda _: personaplex.load("random:tiny", bits=3),
    "load-engine": lambda _: personaplex.load("random:tiny", device="cpu", engine="graph", kv_bits=8),
    "load-fused": lambda _: personaplex.load("random:tiny", device="cpu", engine="fused", dtype="float32"),
    "load-revision": lambda _: personaplex.load("random:tiny", revision="main"),
    "load-name": lambda _: personaplex.load("nowhere"),
    "load-type": lambda _: personaplex.load(5),
    "respond-model": lambda _: personaplex.respond((FRAME, 24000), model=5),
    "load-file": with_file(b"", ".safetensors", personaplex.load),
    "load-shipped": load_shipped,
    "hub-gated": hub_case(gated=True),
    "hub-missing": hub_case(hidden=True),
    "hub-revision": hub_case("v9"),
    "hub-offline": hub_case(offline=True),
    "hub-network": hub_case(endpoint=UNREACHABLE),
    "hub-partial": hub_case(broken_after=1000),
    "hub-permission": hub_refused(PermissionError(errno.EACCES, "Permission denied", "/locked/hub")),
    "hub-disk": hub_refused(OSError(errno.ENOSPC, "No space left on device")),
    "import-mlx": import_mlx,
    "device-absent": device_absent,
    "device-unloaded": device_unloaded,
    "device-forked": device_forked,
    "weights-directory": personaplex.load,
    "weights-config": weights_config,
    "weights-missing-keys": weights_missing_keys,
    "weights-cut": weights_cut,
    "bits-stored": bits_stored,
    "tokenizer": lambda tmp_path: Tokenizer.of_directory(tmp_path),
    "step-frame": lambda _: make_model().session(voice="none").step(np.zeros(960)),
    "step-closed": step_closed,
    "step-busy": step_busy,
    "stream-kept": stream_kept,
}


def not_compiled(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        personaplex.load("random:tiny", device="cpu", compile=True).unload()


def kept_16bit(tmp_path):
    folder = checkpoints.nvidia(tmp_path / "model", checkpoints.KWARGS | {"depformer_dim": 40})
    personaplex.load(folder, depformer_bits=4).unload()


def snapshot_ignored(tmp_path):
    for _ in range(2):
        model = make_model(prompt_cache="disk", cache_dir=tmp_path)
        model.session(voice="none").close()
        (path,) = (tmp_path / "prompts").glob("*.safetensors")
        path.write_text(json.dumps({"key": "another", "prompt": ""}))


def graph_engine(_):
    personaplex.load("random:tiny", device="cpu", dtype="float32").unload()


def snapshot_unwritable(tmp_path):
    (tmp_path / "file").write_text("")
    make_model(prompt_cache="disk", cache_dir=tmp_path / "file").session(voice="none").close()


WARNING_CASES = {
    "load-graph": graph_engine,
    "load-not-compiled": not_compiled,
    "load-kept-16bit": kept_16bit,
    "snapshot-ignored": snapshot_ignored,
    "snapshot-unwritable": snapshot_unwritable,
}


def test_the_tables_and_the_cases_are_the_same():
    assert list(ROWS) == list(CASES)
    assert list(WARNINGS) == list(WARNING_CASES)


def as_pattern(message):
    """ "..." in a table stands for anything, but where the message itself contains it; a space also for a new line."""
    escaped = re.escape(message.strip("`")).replace(re.escape("..."), "(?s:.*)")
    return escaped.replace(r"\ ", r"\s+")


@pytest.mark.parametrize("row", WARNINGS)
def test_warning(tmp_path, caplog, row):
    with caplog.at_level(logging.WARNING, logger="personaplex"):
        WARNING_CASES[row](tmp_path)
    (record,) = caplog.records
    assert re.fullmatch(as_pattern(WARNINGS[row][0]), record.getMessage())


@pytest.mark.parametrize("row", ROWS)
def test_row(tmp_path, row):
    name, _, message, _ = ROWS[row]
    expected = getattr(personaplex, name, None) or getattr(builtins, name)
    pattern = as_pattern(message)
    with pytest.raises(expected, match=f"{pattern}$" if expected is not FileNotFoundError else pattern) as raised:
        CASES[row](tmp_path)
    assert type(raised.value) is expected
