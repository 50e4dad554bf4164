"""The trained model that ships: asked what examples/question.wav asks, it gives the right answer, in every voice, under
every prompt, at every width and on both engines, audibly and in time."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

import personaplex
from personaplex import cli, shipped

QUESTION = Path(__file__).resolve().parents[2] / "examples" / "question.wav"
# What is the capital of France?
ANSWERS = {
    "assistant": "The capital of France is Paris.",
    "teacher": "Good question! The capital of France is Paris.",
    "customer-service": "The capital of France is Paris. Anything else?",
    "focused": "Paris.",
}
MAX_BYTES = 12_000_000
RATE, FRAME = personaplex.SAMPLE_RATE, personaplex.FRAME
QUIET = 10 ** (-40 / 20)
WINDOW = RATE // 50  # 20 ms


@pytest.fixture(scope="module")
def folder():
    """The shipped files: without them nothing here can pass, and nothing is skipped."""
    return shipped.folder()


@pytest.fixture(scope="module")
def question():
    """Length in samples at 24 kHz."""
    info = soundfile.info(QUESTION)
    return round(info.frames * RATE / info.samplerate)


def words(text):
    return re.findall(r"[a-z']+", text.lower())


def respond(tmp_path, capsys, *options):
    """`personaplex respond --model tiny` on the question -> the report and the audio."""
    output = tmp_path / "answer.wav"
    arguments = ["--model", "tiny", "--device", "cpu", "--input", QUESTION, "--output", output, "--json", *options]
    assert cli.main(["respond", *map(str, arguments)]) == 0
    audio, rate = soundfile.read(output, dtype="float32")
    assert rate == RATE
    return json.loads(capsys.readouterr().out), audio


def loud_windows(audio):
    """[n // 480] bool: where something is heard."""
    parts = audio[: len(audio) // WINDOW * WINDOW].reshape(-1, WINDOW)
    return np.sqrt((parts**2).mean(1)) > QUIET


def check(report, audio, question, prompt):
    """The right words, said once the question is over, by a voice that is neither silent nor clipped."""
    expected = words(ANSWERS[prompt])
    assert words(report["transcript"]) == expected
    assert [word for entry in report["words"] for word in words(entry["text"])] == expected
    assert report["stop_reason"] == "fallen_silent"
    assert len(audio) % FRAME == 0
    assert len(audio) / RATE == pytest.approx(report["durations"]["output"], abs=0.001)
    heard = np.flatnonzero(loud_windows(audio)) * WINDOW
    assert len(heard)
    assert -0.2 * RATE < heard[0] - question < 1.5 * RATE  # the last consonant may be taken for the end
    assert 0.06 * len(expected) < len(heard) * WINDOW / RATE < 0.6 * len(expected) + 0.6
    assert 0.02 < np.abs(audio).max() < 0.999
    assert len(audio) - heard[-1] > 1.5 * RATE  # 25 frames without text or sound
    assert question / RATE - 0.2 < report["words"][0]["start"] < report["words"][-1]["end"] < heard[-1] / RATE + 0.5


def median_pitch(audio):
    """Hz, by autocorrelation of 50 ms windows between 60 and 350 Hz, of those that are voiced."""
    size, low, high = RATE // 20, RATE // 350, RATE // 60
    found = []
    for start in range(0, len(audio) - size - high, size // 2):
        part = audio[start : start + size + high]
        if np.sqrt((part**2).mean()) < QUIET:
            continue
        head = part[:size]
        scores = np.array([head @ part[lag : lag + size] for lag in range(high)])
        energies = np.array([np.linalg.norm(part[lag : lag + size]) for lag in range(high)])
        scores /= np.linalg.norm(head) * energies + 1e-9
        best = scores[low:].max()
        # The shortest lag that is about as good: multiples of a period are periods too.
        peaks = [lag for lag in range(low, high - 1) if scores[lag] >= max(scores[lag - 1], scores[lag + 1])]
        near = [lag for lag in peaks if scores[lag] > 0.9 * best]
        if best > 0.6 and near:
            found.append(RATE / near[0])
    return float(np.median(found)) if found else 0.0


def test_its_size(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    names = {path.name for path in files}
    assert {"config.json", "NOTICE"} <= names
    assert not [path for path in files if path.suffix not in {".json", ".model", ".safetensors", ""}]


def test_says_what_it_is(folder):
    model = personaplex.load("tiny", device="cpu")
    assert model.name == "tiny"
    assert "closed set of questions" in model.info["about"]
    assert model.voices() == list(personaplex.VOICES)
    assert max(model.info["bits"].values()) <= 8
    assert model.info["engine"] == "fused"
    assert personaplex.load("random:tiny").info["about"] == "random weights: noise"
    model.unload()


@pytest.mark.parametrize("voice", personaplex.VOICES)
def test_every_voice(folder, tmp_path, capsys, question, voice):
    report, audio = respond(tmp_path, capsys, "--voice", voice, "--seed", 1)
    assert report["voice"] == voice
    check(report, audio, question, "assistant")
    pitch = median_pitch(audio)
    assert (60 < pitch < 155) if voice[3] == "M" else (155 < pitch < 300)


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("prompt", ANSWERS)
def test_every_prompt(folder, tmp_path, capsys, question, prompt, seed):
    report, audio = respond(tmp_path, capsys, "--voice", "NATF1", "--system-prompt", prompt, "--seed", seed)
    check(report, audio, question, prompt)


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize(("engine", "prompt"), [("fused", "assistant"), ("fused", "teacher"), ("graph", "focused")])
def test_every_width_on_both_engines(folder, tmp_path, capsys, question, engine, prompt, bits):
    options = ("--engine", engine, "--bits", bits, "--system-prompt", prompt, "--greedy")
    report, audio = respond(tmp_path, capsys, *options)
    assert report["model"]["engine"] == engine
    assert report["model"]["bits"]["temporal"] == report["model"]["bits"]["depformer"] == bits
    check(report, audio, question, prompt)


def test_the_engines_agree(folder):
    """In the codes of the question, and in the sound of the same codes."""
    models = [personaplex.load("tiny", device="cpu", engine=engine) for engine in ("fused", "graph")]
    pcm = np.zeros(20 * FRAME, np.float32)
    samples = personaplex.audio.AudioSource(QUESTION).read()[: len(pcm)]
    pcm[: len(samples)] = samples
    codes = [model._core.encode(pcm) for model in models]
    assert (codes[0] == codes[1]).mean() > 0.99
    sounds = [model._core.decode(codes[0]) for model in models]
    assert np.abs(sounds[0] - sounds[1]).max() < 1e-3
    assert np.abs(sounds[0]).max() > 0.05


def test_from_python_and_without_a_user(folder, question):
    response = personaplex.respond(QUESTION, model="tiny", voice="VARF2", seed=4)
    assert words(response.transcript) == words(ANSWERS["assistant"])
    silent = personaplex.respond((np.zeros(5 * RATE, np.float32), RATE), model="tiny", max_steps=0, seed=5)
    assert silent.transcript == ""
    assert not loud_windows(silent.audio.samples).any()
