"""The command line on a scripted core: in this process for results, in its own for pipes, Ctrl-C and exit codes."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fakes
import numpy as np
import pytest
import soundfile

import personaplex
from personaplex import _core, cli, progress
from personaplex.text import Tokenizer

HELLO = Tokenizer.of_random()._sp.encode("hello there")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, frames in (("question.wav", 10), ("other.wav", 5)):
        soundfile.write(name, np.full(frames * 1920, 0.25), 24000)


class Loader:
    """Stands in for personaplex.load; remembers what it was asked for."""

    def __init__(self, **core):
        self.core, self.calls, self.models = core, [], []

    def __call__(self, name, **options):
        self.calls.append((name, options))
        self.models.append(fakes.make_model(fakes.FakeModel(fakes.says(*HELLO), **self.core)))
        return self.models[-1]

    @property
    def session(self):
        return self.models[0]._core.sessions[0]


def run(*arguments, **core):
    loader = Loader(**core)
    return cli.main(["respond", *map(str, arguments)], loader), loader


def command(*arguments, **environment):
    return [sys.executable, fakes.__file__, "respond", *arguments], {**os.environ, **environment}


# What is written


def test_the_answer_lies_beside_the_caller(capsys):
    status, loader = run("--input", "question.wav")
    out, err = capsys.readouterr()
    assert status == 0
    assert out == ""
    assert "question-response.wav: 2.8 s" in err
    audio, rate = soundfile.read("question-response.wav")
    assert (rate, audio.shape) == (24000, (35 * 1920,))
    assert loader.calls[0][0] == "aufklarer/PersonaPlex-7B-MLX-4bit"


def test_every_option_arrives(capsys):
    path = Path("prompt.txt")
    path.write_text("You sell fish.")
    status, loader = run(
        *("--input", "question.wav", "--voice", "VARF4", "--system-prompt", "@prompt.txt", "--max-steps", 3),
        *("--audio-temp", 0.5, "--audio-top-k", 7, "--text-temp", 0.25, "--text-top-k", 9, "--seed", 42),
        *("--model", "random:tiny", "--device", "cpu", "--engine", "graph", "--dtype", "float32", "--bits", 8),
        *("--temporal-bits", 4, "--depformer-bits", 16, "--head-bits", 8, "--embedding-bits", 8, "--group-size", 32),
        *("--kv-bits", 8, "--threads", 3),
        *("--depformer-steps", 16, "--context", 100, "--compile", "--prompt-cache", "off", "--json"),
    )
    assert status == 0
    assert loader.calls == [
        (
            "random:tiny",
            {
                "device": "cpu",
                "engine": "graph",
                "dtype": "float32",
                "bits": 8,
                "temporal_bits": 4,
                "depformer_bits": 16,
                "head_bits": 8,
                "embedding_bits": 8,
                "group_size": 32,
                "depformer_steps": 16,
                "context": 100,
                "kv_bits": 8,
                "threads": 3,
                "compile": True,
                "revision": None,
                "prompt_cache": "off",
            },
        )
    ]
    facts = json.loads(capsys.readouterr().out)
    assert facts["voice"] == "VARF4"
    assert facts["system_prompt"]["text"] == "You sell fish."
    assert facts["tokens"]["output_frames"] == 13
    assert facts["seed"] == loader.session.seed == 42
    assert facts["sampling"] == {
        "audio_temperature": 0.5,
        "audio_top_k": 7,
        "text_temperature": 0.25,
        "text_top_k": 9,
    }
    # Every keyword of load() can be given on the command line.
    import inspect

    assert set(inspect.signature(personaplex.load).parameters) - {"model", "cache_dir"} == set(loader.calls[0][1])


def test_defaults_are_the_documented_ones():
    options = cli._parser().parse_args(["respond", "--input", "x"])
    assert (options.voice, options.system_prompt, options.max_steps) == ("NATM0", "assistant", 200)
    assert (options.audio_temp, options.audio_top_k, options.text_temp, options.text_top_k) == (0.8, 250, 0.7, 25)
    assert not any([options.stream, options.compile, options.transcript, options.json, options.greedy])


def test_transcript_goes_to_standard_output(capsys):
    run("--input", "question.wav", "--transcript")
    assert capsys.readouterr().out == "hello there\n"
    run("--input", "question.wav", "--transcript", "--stream")
    assert capsys.readouterr().out.strip() == "hello there"


@pytest.mark.parametrize("stream", [(), ("--stream",)])
@pytest.mark.parametrize("kind", ["wav", "raw"])
def test_stereo_is_user_left_agent_right(stream, kind):
    name = f"both.{kind}"
    run("--input", "question.wav", "--stereo", "--output", name, "--format", kind, *stream)
    if kind == "wav":
        both = soundfile.read(name)[0]
    else:
        both = np.frombuffer(Path(name).read_bytes(), "<i2").reshape(-1, 2) / 32767
    assert both.shape == (35 * 1920, 2)
    np.testing.assert_allclose(both[: 10 * 1920, 0], 0.25, atol=1e-4)
    assert not both[10 * 1920 :, 0].any()
    assert np.abs(both[:1920, 1]).max() == pytest.approx(0.5, abs=1e-4)


def test_the_suffix_chooses_the_format():
    run("--input", "question.wav", "--output", "answer.flac")
    assert soundfile.info("answer.flac").format == "FLAC"


def test_streamed_and_written_at_the_end_are_the_same():
    run("--input", "question.wav", "--output", "a.wav")
    run("--input", "question.wav", "--output", "b.wav", "--stream")
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()


def test_several_inputs_share_one_load(capsys):
    status, loader = run("--input", "question.wav", "--input", "other.wav", "--output", "new/answers", "--json")
    assert status == 0
    assert len(loader.calls) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["audio"]).name for line in lines] == ["question-response.wav", "other-response.wav"]
    assert [line["input"] for line in lines] == ["question.wav", "other.wav"]
    assert all(Path(line["audio"]).is_file() for line in lines)
    run("--input", "question.wav", "--input", "other.wav", "--output", "{name}-answer.flac")
    assert Path("other-answer.flac").is_file()


def test_an_existing_output_is_replaced():
    Path("answer.wav").write_text("old")
    assert run("--input", "question.wav", "--output", "answer.wav")[0] == 0
    assert soundfile.info("answer.wav").frames == 35 * 1920


# Mistakes are found before the model is loaded


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--input", "missing.wav"], 2, "'missing.wav': No such file"),
        (["--input", "."], 2, "folder"),
        (["--input", "prompt.txt"], 2, "not an audio file"),
        (["--input", "empty.wav"], 2, "'empty.wav' is empty"),
        (["--input", "question.wav", "--output", "answer.docx"], 2, "no audio suffix"),
        (["--input", "question.wav", "--output", "prompt.txt/a.wav"], 1, "prompt.txt"),
        (["--input", "question.wav", "--output", "question.wav"], 2, "is an input too"),
        (["--input", "question.wav", "--output", "-", "--json"], 2, "both want standard output"),
        (["--input", "question.wav", "--input", "other.wav", "--output", "-"], 2, "takes one --input"),
        (["--input", "question.wav", "--input", "other.wav", "--output", "one.mp4"], 2, "cannot all be written to"),
        (["--input", "question.wav", "--output", "{stem}.wav"], 2, "not {stem}"),
        (["--input", "-", "--input", "-"], 2, "once"),
        (["--input", "question.wav", "--input", "nan.wav", "--output", "new/"], 2, "sample 7 of 'nan.wav' is nan"),
        (["--input", "question.wav", "--voice", "prompt.txt"], 2, "'prompt.txt' is not an audio file"),
        (["--input", "question.wav", "--stream", "--output", "a.flac"], 2, "--stream writes .wav"),
        (["--input", "question.wav", "--format", "wav", "--output", "a.flac"], 2, "--format wav writes .wav"),
        (["--input", "question.wav", "--max-steps", "-1"], 2, "max_steps"),
        (["--input", "question.wav", "--seed", "-1"], 2, "seed"),
        (["--input", "question.wav", "--context", "1"], 2, "context of 2 or more"),
        (["--input", "question.wav", "--text-temp", "-1"], 2, "text_temperature"),
        (["--input", "question.wav", "--audio-top-k", "-1"], 2, "audio_top_k"),
        (["--input", "question.wav", "--system-prompt", "@none.txt"], 2, "No such file"),
        (["--input", "question.wav", "--voice", "none.wav"], 2, "no file 'none.wav'"),
    ],
)
def test_mistakes_cost_no_loading(capsys, arguments, status, message):
    Path("prompt.txt").write_text("You sell fish.")
    soundfile.write("empty.wav", np.zeros(0), 24000)
    soundfile.write("nan.wav", np.where(np.arange(99) == 7, np.nan, 0), 24000, subtype="FLOAT")
    before = sorted(os.listdir())
    got, loader = run(*arguments)
    out, err = capsys.readouterr()
    assert (got, out, loader.calls) == (status, "", [])
    assert err.startswith("personaplex: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(os.listdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_output_costs_no_loading(capsys):
    Path("locked").mkdir(mode=0o500)
    status, loader = run("--input", "question.wav", "--output", "locked/a.wav")
    assert (status, loader.calls) == (1, [])
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["respond"], ["respond", "--input", "a", "--bits", "3"], ["respond", "--input", "a", "--seed", "x"], ["sing"]],
)
def test_unknown_options_are_usage_errors(capsys, arguments):
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("personaplex: error: ")
    assert err.endswith(
        f"; see `{' '.join(['personaplex', *arguments[:1]])} --help`\n" if arguments[:1] == ["respond"] else "--help`\n"
    )
    assert err.count("\n") == 1


# Failures after loading


def test_a_failure_is_one_line_and_debug_shows_the_traceback(capsys):
    def load(name, **options):
        raise personaplex.HubError("[load] a/b is gated:\naccept its licence.")

    assert cli.main(["respond", "--input", "question.wav"], load) == 1
    assert capsys.readouterr().err == "personaplex: error: [load] a/b is gated: accept its licence.\n"
    with pytest.raises(personaplex.HubError):
        cli.main(["respond", "--input", "question.wav", "--debug"], load)
    status, _ = run("--input", "question.wav", fail_at=3)
    assert status == 1
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_ctrl_c_keeps_what_was_generated(capsys, stream):
    status, loader = run("--input", "question.wav", "--json", *stream, interrupt_at=6)
    assert status == 130
    assert soundfile.info("question-response.wav").frames == 6 * 1920
    facts = json.loads(capsys.readouterr().out)
    assert (facts["interrupted"], facts["stop_reason"], facts["tokens"]["output_frames"]) == (True, "closed", 6)
    assert loader.session.closed


def test_ctrl_c_while_loading(capsys):
    def load(name, **options):
        raise KeyboardInterrupt

    assert cli.main(["respond", "--input", "question.wav"], load) == 130
    assert capsys.readouterr().err == "personaplex: interrupted\n"
    assert not Path("question-response.wav").exists()


# In a process of its own


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_real_signal_in_a_real_process(number, status):
    arguments, environment = command("--input", "question.wav", "--stream", FAKE_STEP_SECONDS="0.1")
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (Path("question-response.wav").is_file() and soundfile.info("question-response.wav").frames >= 5760):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == status
    assert err.startswith("personaplex: stopping; keeping what was generated\n")
    assert "interrupted; this is what was generated so far" in err
    assert "Traceback" not in err
    assert soundfile.info("question-response.wav").frames % 1920 == 0


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_audio_on_standard_output(stream):
    arguments, environment = command("--input", "question.wav", "--output", "-", "--transcript", *stream)
    run = subprocess.run(arguments, env=environment, capture_output=True, check=True)
    audio, rate = soundfile.read(io.BytesIO(run.stdout))
    assert (rate, len(audio)) == (24000, 35 * 1920)
    assert b"hello there" in run.stderr
    assert b"frame" not in run.stderr  # no progress bar: this is no terminal
    arguments, environment = command("--input", "question.wav", "--output", "-", "--format", "raw", *stream)
    run = subprocess.run(arguments, env=environment, capture_output=True, check=True)
    np.testing.assert_allclose(np.frombuffer(run.stdout, "<i2") / 32767, audio, atol=1e-4)


def test_json_is_alone_on_standard_output():
    arguments, environment = command("--input", "question.wav", "--json", "--transcript", "--stream")
    run = subprocess.run(arguments, env=environment, capture_output=True, check=True, text=True)
    assert json.loads(run.stdout)["transcript"] == "hello there"
    assert run.stdout.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("--stream", "--output", "-"), ("--output", "-")])
def test_a_reader_that_leaves_is_no_drama(arguments, unbuffered):
    arguments, environment = command(
        *("--input", "question.wav", *arguments), FAKE_STEP_SECONDS="0.02", PYTHONUNBUFFERED=unbuffered
    )
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(10).startswith(b"RIFF")
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert b"Traceback" not in err
    assert b"Exception" not in err
    assert b"seed" not in err  # no report of success


def test_the_progress_bar_is_for_terminals(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_AFTER_SECONDS", 0.0)
    run("--input", "question.wav")
    err = capsys.readouterr().err
    assert [word for word in ("loading", "prompt", "frame") if word in err] == []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run("--input", "question.wav", "--model", "random:tiny")
    err = capsys.readouterr().err
    assert err.startswith("personaplex: loading random:tiny ...\n")
    assert err.index("prompt:") < err.index("answer:")
    assert "frame" in err
    run("--input", "question.wav", "--stream", "--transcript")
    assert "answer:" not in capsys.readouterr().err  # the text is there


def test_what_is_over_in_two_seconds_has_no_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run("--input", "question.wav")
    err = capsys.readouterr().err
    assert "prompt:" not in err
    assert "answer:" not in err


# The other commands


def test_voices_and_prompts(capsys):
    assert cli.main(["voices"]) == 0
    assert capsys.readouterr().out.split()[::3] == list(personaplex.VOICES)
    assert cli.main(["prompts"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and text in out for name, text in personaplex.PROMPTS.items())


def test_a_preset_from_a_recording(capsys):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 24000)
    soundfile.write("me.wav", noise, 24000)
    loader = Loader()
    assert cli.main(["voices", "--imitate", "me.wav", "--output", "me.safetensors"], loader) == 0
    assert _core.read_tensors("me.safetensors")["embeddings"].shape == (12, 1, 1, 8)
    assert run("--input", "question.wav", "--voice", "me.safetensors")[0] == 0
    assert run("--input", "question.wav", "--voice", "me.wav")[0] == 0
    for arguments in (["--imitate", "me.wav"], ["--imitate", "me.wav", "--output", "me.wav"]):
        assert cli.main(["voices", *arguments], loader) == 2


def test_help_teaches(capsys):
    for arguments in (["--help"], ["respond", "--help"]):
        with pytest.raises(SystemExit) as raised:
            cli.main(arguments)
        assert raised.value.code == 0
        assert "personaplex respond --model tiny --input question.wav --transcript" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["respond", "--help"])
    out = capsys.readouterr().out
    for model in (
        "PersonaPlex-7B-MLX-8bit",
        "nvidia/personaplex-7b-v1",
        "CC-BY-NC-4.0",
        "gated",
        "random:7b",
        "closed set of questions",
    ):
        assert model in out


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"personaplex {personaplex.__version__}\n"


def test_importing_is_quick_and_imports_no_more_than_needed():
    program = "import sys, time; t = time.time(); import personaplex; print(time.time() - t, *sys.modules)"
    seconds, *modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    slow = {"huggingface_hub", "soundfile", "soxr", "sentencepiece", "pyloudnorm", "scipy", "tqdm", "mlx.core"}
    assert not slow & set(modules)
    assert float(seconds) < 2.0  # 0.3 s alone; this machine may be busy
