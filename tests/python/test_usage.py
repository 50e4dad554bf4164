"""The command's manners: outputs' names and when they are touched, hints, standard input, terminals, quiet ends."""

import io
import json
import subprocess
import sys
from pathlib import Path

import fakes
import huggingface_hub
import numpy as np
import pytest
import soundfile
from test_cli import Loader, command, run

import personaplex
from personaplex import api, cli, hub


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (".", "a", "b"):
        Path(folder).mkdir(exist_ok=True)
        soundfile.write(f"{folder}/question.wav", np.full(5 * 1920, 0.25), 24000)


def test_equal_names_are_numbered(capsys):
    inputs = ("--input", "question.wav", "--input", "a/question.wav", "--input", "b/question.wav", "--json")
    for output, expected in (
        ("made/", ["question-response.wav", "question-2-response.wav", "question-3-response.wav"]),
        ("{name}.wav.flac", ["question.wav.flac", "question-2.wav.flac", "question-3.wav.flac"]),
        ("{index}.wav", ["1.wav", "2.wav", "3.wav"]),
        ("new/{index}-{name}.wav", ["1-question.wav", "2-question-2.wav", "3-question-3.wav"]),
    ):
        assert run(*inputs, "--output", output)[0] == 0
        written = [Path(json.loads(line)["audio"]) for line in capsys.readouterr().out.splitlines()]
        assert [path.name for path in written] == expected
        assert all(path.is_file() for path in written)


def test_a_number_is_no_other_input_s_name():
    from personaplex.respond_command import _stems

    assert _stems(["a.wav", "x/a.wav", "a-2.wav", "A.flac", "-"]) == ["a", "a-3", "a-2", "A-4", "stdin"]


@pytest.mark.parametrize("wrong", [("--voice", "NATX9"), ("--system-prompt", "word " * 4000)])
@pytest.mark.parametrize("output", ["answer.wav", "-"])
def test_streaming_touches_no_output_before_all_is_checked(capsysbinary, wrong, output):
    Path("answer.wav").write_bytes(b"precious")
    assert run("--input", "question.wav", "--stream", "--output", output, *wrong)[0] == 2
    assert Path("answer.wav").read_bytes() == b"precious"
    assert capsysbinary.readouterr().out == b""


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_ctrl_c_before_the_first_frame_leaves_the_output(capsys, stream):
    Path("answer.wav").write_bytes(b"precious")
    assert run("--input", "question.wav", "--output", "answer.wav", *stream, interrupt_at=0)[0] == 130
    assert Path("answer.wav").read_bytes() == b"precious"
    assert capsys.readouterr().err == "personaplex: interrupted\n"


def test_standard_input_is_an_input(capsys):
    arguments, environment = command("--input", "-", "--json")
    data = Path("question.wav").read_bytes()
    done = subprocess.run(arguments, env=environment, input=data, capture_output=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["input"] == "-"
    assert facts["durations"]["input"] == 0.4
    assert Path(facts["audio"]).name == "stdin-response.wav"
    done = subprocess.run(arguments, env=environment, input=b"text", capture_output=True, check=False)
    assert done.returncode == 2
    assert b"'standard input' is not an audio file" in done.stderr


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


def test_no_audio_from_or_to_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO()))
    assert run("--input", "question.wav", "--output", "-")[0] == 2
    assert "standard output is a terminal; redirect it" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO()))
    assert run("--input", "-")[0] == 2
    assert "standard input is a terminal" in capsys.readouterr().err


def test_a_word_that_looks_like_a_preset_gets_a_hint(capsys):
    assert run("--input", "question.wav", "--system-prompt", "Techer")[0] == 0
    assert (
        "personaplex: note: the prompt is the text 'Techer'; did you mean the preset teacher?"
        in capsys.readouterr().err
    )
    for prompt in ("teacher", "Help.", "a techer", ""):
        run("--input", "question.wav", "--system-prompt", prompt)
        assert "note" not in capsys.readouterr().err


def test_voices_in_any_case_and_near_misses():
    model = fakes.make_model()
    audio = np.zeros(1920, np.float32), 24000
    assert model.respond(audio, voice="natf2", max_steps=0).metadata["voice"] == "NATF2"
    with pytest.raises(ValueError, match=r"\(did you mean NATF[0-3]\?\)"):
        model.respond(audio, voice="NATF22")
    with pytest.raises(personaplex.HubError, match=r"\(did you mean random:tiny\?\)"):
        hub.resolve("randomtiny")


def test_voices_of_a_model(tmp_path, capsys):
    (tmp_path / "model" / "voices").mkdir(parents=True)
    for name in ("mine", "NATM1"):
        (tmp_path / "model" / "voices" / f"{name}.safetensors").write_bytes(b"")
    assert cli.main(["voices", "--model", "model"]) == 0
    assert capsys.readouterr().out == "NATM1  natural, male\nmine  a preset of this model\n"
    assert cli.main(["voices", "--model", "random:tiny"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 18
    assert cli.main(["voices", "--model", "owner/nothing"]) == 1
    assert "owner/nothing is not in the cache; `hf download owner/nothing` fetches it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["voices", "--compile"])


def test_a_preset_is_made_without_the_options_of_answers():
    soundfile.write("me.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 24000), 24000)
    loader = Loader()
    assert cli.main(["voices", "--imitate", "me.wav", "--output", "me.safetensors", "--bits", "8"], loader) == 0
    assert loader.calls[0][0] == hub.DEFAULT_MODEL
    assert loader.calls[0][1]["bits"] == 8
    assert cli.main(["voices", "--imitate", "none.wav", "--output", "me.safetensors"], loader) == 2


def test_respond_takes_the_name_of_a_model(monkeypatch):
    loads = []

    def load(name):
        loads.append(name)
        return fakes.make_model()

    monkeypatch.setattr(api, "load", load)
    monkeypatch.setattr(api, "_kept", {})
    audio = np.zeros(1920, np.float32), 24000
    for model in ("random:tiny", Path("folder"), "random:tiny"):
        assert len(personaplex.respond(audio, model=model, max_steps=0).tokens) == 1
    assert loads == ["random:tiny", "folder"]
    with pytest.raises(TypeError, match=r"\[respond\] expected a model of personaplex.load\(\)"):
        personaplex.respond(audio, model=5)


def test_load_takes_names_only():
    with pytest.raises(TypeError, match=r"\[load\] expected the name or directory of a model, got int"):
        personaplex.load(5)


def test_a_response_is_shown_in_a_line():
    response = fakes.make_model().respond((np.zeros(1920, np.float32), 24000), max_steps=0)
    assert repr(response) == "Response(0.08 s, 0 words, '')"


def test_a_cache_without_permission_is_named(monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied", "/locked/hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", forbidden)
    with pytest.raises(
        personaplex.HubError, match=r"the cache '/locked/hub' cannot be used: Permission denied.*HF_HOME"
    ):
        hub.resolve("owner/name")


def test_a_small_context_is_blamed_too():
    core = fakes.FakeModel()
    core.config["context"] = 20
    audio = np.zeros(1920, np.float32), 24000
    with pytest.raises(ValueError, match=r"context 20; shorten it, or load the model with a larger context"):
        fakes.make_model(core).respond(audio, voice="none", system_prompt="word " * 50)


def test_what_an_answer_cost_is_told():
    facts = fakes.make_model().respond((np.zeros(1920, np.float32), 24000), max_steps=0).metadata
    assert facts["load_seconds"] == 0.0
    assert facts["peak_memory_bytes"] > 1 << 24  # Python and NumPy alone
    assert api.load("random:tiny")._load_seconds > 0


def test_a_closed_pipe_after_a_list_is_no_drama():
    arguments = [sys.executable, "-m", "personaplex", "prompts"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 1)


def test_ctrl_c_while_importing_is_quiet():
    program = (
        "import sys, types; sys.argv = ['personaplex']; import personaplex.interrupts as i, signal, os;"
        "signal.signal(signal.SIGINT, signal.default_int_handler); i.quiet_while_importing();"
        "os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")
    program = "import signal, personaplex; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", program], check=True)  # a library leaves signals alone
