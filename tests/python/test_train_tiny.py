"""Training of the tiny model at toy scale: its texts, the plan of its talks, its sounds; with torch, its codec too."""

import importlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "tools" / "train_tiny"
if not FOLDER.exists():
    pytest.skip("a source archive without the tools", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def _path():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def load(name):
    return importlib.import_module(name)


def test_no_phrasing_belongs_to_two_intents_or_to_both_sets():
    intents, others = load("intents").INTENTS, load("other_lines")
    said = [p for i in intents for p in (*i.phrasings, *i.held_out)]
    assert len(intents) == 67
    assert len(said) == len(set(said))
    assert not set(said) & {*others.TRAIN, *others.HELD_OUT}
    assert not set(others.TRAIN) & set(others.HELD_OUT)
    assert all(i.held_out and len(i.phrasings) >= 15 for i in intents)
    assert len(others.TRAIN) > 1000
    normal = load("phrases").normal
    trained = {normal(text) for text in (*others.TRAIN, *(p for i in intents for p in i.phrasings))}
    assert not trained & {normal(text) for text in (*others.HELD_OUT, *(p for i in intents for p in i.held_out))}
    assert not {normal(text) for text in others.TRAIN} & {normal(p) for i in intents for p in i.phrasings}


def test_nothing_of_the_evaluation_is_composed_and_no_question_becomes_another():
    phrases, intents, others = load("phrases"), load("intents").INTENTS, load("other_lines")
    assert phrases.allowed("can you tell me", "the capital of france", "please")
    assert "tell me" in phrases.leads("the color of the sky")
    assert "tell me" not in phrases.leads("where do you live")
    assert not phrases.allowed("tell me", "the color of the sky", "")  # held out
    assert not phrases.allowed("tell me", "what music you like", "")
    held_out = {phrases.normal(text) for text in (*others.HELD_OUT, *(p for i in intents for p in i.held_out))}
    for number, intent in enumerate(intents):
        for text in intent.phrasings[::3]:
            for before in ("", *phrases.leads(text)):
                if phrases.allowed(before, text, ""):
                    whole = phrases.normal(f"{before} {text}")
                    assert whole not in held_out
                    assert phrases.KNOWN.get(whole, number) == number


def test_words_are_told_in_order_while_they_are_said():
    vocabulary = load("hearing").Vocabulary(["What's your name", "the capital of France"])
    assert vocabulary.words == ["capital", "france", "is", "name", "of", "the", "what", "your"]
    spans = vocabulary.spans("what's your name", 1.2)
    assert [vocabulary.words[number - 1] for number, _, _ in spans] == ["what", "is", "your", "name"]
    assert spans[0][1] == 0
    assert spans[-1][2] == 1.2
    assert all(start < end for _, start, end in spans)
    assert [end for _, _, end in spans[:-1]] == [start for _, start, _ in spans[1:]]
    assert len(vocabulary) == 9


def test_styles_change_the_answer():
    answers, intents = load("answers"), load("intents").INTENTS
    spider = next(i for i in intents if "spider" in i.phrasings[0])
    said = [answers.answer(spider, style) for style in range(4)]
    assert said == [
        ("A spider has eight legs.",),
        ("Good question!", "A spider has eight legs."),
        ("A spider has eight legs.", "Anything else?"),
        ("Eight.",),
    ]
    name = next(i for i in intents if i.full == answers.NAME)
    assert answers.answer(name, answers.SERVICE)[0] == "My name is Sam."
    assert answers.answer(None, answers.BRIEF) == ("Pardon?",)
    assert not set(answers.lines()) & set(answers.VOICE_LINES)


def test_the_styles_are_the_prompt_presets_of_the_package():
    presets = pytest.importorskip("personaplex.prompts").PROMPTS
    wanted = [presets[name] for name in ("assistant", "teacher", "customer-service", "focused")]
    assert list(load("answers").PROMPTS) == wanted


def test_words_of_a_line_begin_in_order_within_it():
    starts = load("alignment").word_starts("Hello! How can I help you?", 2.0)
    assert [w for w, _ in starts] == ["Hello!", "How", "can", "I", "help", "you?"]
    times = [t for _, t in starts]
    assert times[0] == 0
    assert times == sorted(set(times))
    assert 0.5 < times[1] < 1.2
    assert times[-1] < 2.0


def test_talks_answer_after_the_question_and_stop_when_interrupted():
    dialogue, answers = load("dialogue"), load("answers")
    questions = {n: [dialogue.Clip(((n, 0.0),), 1.2)] for n in range(dialogue.OTHER, len(load("intents").INTENTS))}
    talks = [
        dialogue.plan(np.random.default_rng(seed), 400, seed % 4, questions, lambda line: 3 + len(line) // 2)
        for seed in range(200)
    ]
    assert talks[5] == dialogue.plan(np.random.default_rng(5), 400, 1, questions, lambda line: 3 + len(line) // 2)
    turns = [(turn, seed % 4) for seed, talk in enumerate(talks) for turn in talk]
    for turn, style in turns:
        intent = None if turn.intent == dialogue.OTHER else load("intents").INTENTS[turn.intent]
        assert turn.lines == answers.answer(intent, style)
        assert turn.first * 0.08 >= turn.at + 1.2 + 0.4 - 1e-9
        assert turn.first < turn.end <= 400
    for talk in talks:
        for one, next_ in itertools.pairwise(talk):
            begins = next_.at * 12.5
            if one.interrupted:
                assert one.first < begins <= one.end <= begins + dialogue.STOP
            else:
                assert begins >= one.end
    assert 0.1 < np.mean([turn.interrupted for turn, _ in turns]) < 0.4
    assert 1 <= sum(not talk for talk in talks) <= 20


def test_a_user_who_recorded_one_question_asks_no_other():
    dialogue = load("dialogue")
    talk = dialogue.plan(np.random.default_rng(1), 400, 0, {3: [dialogue.Clip(((9, 0.0),), 1.0)]}, lambda line: 20)
    assert talk
    assert {turn.intent for turn in talk} == {3}


def test_sounds_are_trimmed_levelled_and_faded():
    sound = load("sound")
    tone = np.sin(np.arange(24000) * 0.05).astype(np.float32) * 0.3
    padded = np.concatenate([np.zeros(9000), tone, np.zeros(7000)]).astype(np.float32)
    cut = sound.trim(padded)
    assert 24000 <= len(cut) <= 24000 + 2 * 480
    loud = sound.level(cut)
    active = loud[np.abs(loud) > 0.02 * np.abs(loud).max()]
    assert np.sqrt(np.mean(active**2)) == pytest.approx(sound.ACTIVE_RMS, rel=0.02)
    assert abs(sound.fade(tone)[0]) == 0
    assert len(sound.trim(np.zeros(100, np.float32))) == 1
    assert sound.level(np.zeros(10, np.float32)).sum() == 0


def test_warped_spectra_move_their_peaks():
    world = load("world")
    rows = np.exp(-(((np.arange(513) - 100) / 10.0) ** 2))[None]
    assert world.warp(rows, 1.2)[0].argmax() == 120
    assert world.warp(rows, 0.9)[0].argmax() == 90
    assert np.array_equal(world.warp(rows, 1.0), rows)


def test_presets_are_eighteen_different_voices():
    voices = load("voices").PRESETS
    names = [f"{kind}{sex}{i}" for kind, n in (("NAT", 4), ("VAR", 5)) for sex in "FM" for i in range(n)]
    assert sorted(voices) == sorted(names)
    for name, voice in voices.items():
        assert sum(voice.timbre.values()) == pytest.approx(1)
        assert sum(voice.prosody.values()) == pytest.approx(1)
        assert load("voices").HELD_OUT_STYLE not in {**voice.timbre, **voice.prosody}
        assert (voice.pitch > 150) == (name[3] == "F")
    assert len({voice.pitch for voice in voices.values()}) == 18


def test_the_corpus_keeps_evaluation_apart():
    pytest.importorskip("soundfile")
    corpus = load("corpus")
    training = {line for shard in corpus.agents() + corpus.users() for line in shard.lines}
    assert not training & {*corpus.held_out_phrasings(), *load("other_lines").HELD_OUT, *corpus.CODEC_HELD_OUT}
    assert {s.lines for s in corpus.users()} == {s.lines for s in corpus.users()}
    strangers = {s.name for s in corpus.evaluation()} - set(load("voices").PRESETS)
    assert not strangers & {s.name for s in corpus.users()}
    covered = {line for shard in corpus.users() for line in shard.lines}
    assert {*corpus.trained_phrasings(), *load("other_lines").TRAIN, *load("phrases").PARTS} <= covered


def test_shards_give_back_what_was_said(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    if "OPUS" not in soundfile.available_subtypes("OGG"):
        pytest.skip("this libsndfile has no Opus")
    shards = load("shards")
    tones = [np.sin(np.arange(n) * f).astype(np.float32) * 0.2 for n, f in ((9600, 0.05), (4801, 0.11))]
    assert not shards.done(tmp_path, "agents", "A")
    shards.write(tmp_path, "agents", "A", [("one", tones[0]), ("two", tones[1])])
    assert shards.done(tmp_path, "agents", "A")
    clips = shards.read(tmp_path, "agents")
    assert [(c.speaker, c.text, len(c.samples)) for c in clips] == [("A", "one", 9600), ("A", "two", 4801)]
    for clip, tone in zip(clips, tones, strict=True):
        got = clip.samples[500:-500] / 32768
        assert np.corrcoef(got, tone[500:-500])[0, 1] > 0.99


def test_the_codec_learns_saves_and_resumes(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("moshi")
    shards, train_codec = load("shards"), load("train_codec")
    rng = np.random.default_rng(0)
    for group in ("agents", "users"):
        said = [("x", (0.2 * np.sin(np.arange(24000) * rng.uniform(0.03, 0.1))).astype(np.float32)) for _ in range(3)]
        shards.write(tmp_path, group, "A", said)
    small = ["--seconds", "4", "--batch", "2", "--frames", "6", "--bins", "8", "--codebooks", "2"]
    common = [str(tmp_path), str(tmp_path / "out"), *small, "--unquantized", "2", "--report", "1"]
    torch.set_num_threads(1)
    train_codec.main([*common, "--end", "0.5"])
    first = torch.load(tmp_path / "out" / "codec.pt", weights_only=True)
    assert first["quantized"]
    train_codec.main([*common, "--begin", "0.5", "--resume", str(tmp_path / "out" / "codec.pt")])
    second = torch.load(tmp_path / "out" / "codec.pt", weights_only=True)
    assert second["step"] > first["step"] > 2
    model = load("mimi").build(second["config"])
    model.load_state_dict(second["codec"])
    with torch.no_grad():
        codes = model.encode(torch.zeros(1, 1, 1920 * 3))
        assert codes.shape == (1, 2, 3)
        assert int(codes.max()) < 8


def test_losses_are_zero_for_equal_sounds_and_see_a_wrong_pitch():
    torch = pytest.importorskip("torch")
    losses = load("losses").Spectra()
    t = torch.arange(24000)[None] / 24000
    swell = 1 + 0.8 * torch.sin(2 * torch.pi * 4 * t)  # syllables
    voice = lambda f: 0.05 * swell * sum(torch.sin(2 * torch.pi * f * k * t) for k in range(1, 12))  # noqa: E731
    low, same, high = voice(100), voice(100), voice(160)
    for name in ("mel", "linear", "pitch", "envelopes"):
        assert float(getattr(losses, name)(low, same)) == pytest.approx(0, abs=2e-2), name
    assert float(losses.pitch(low, high)) > 0.1
    assert float(losses.linear(low, high)) > 0.1


def tiny_checkpoint(folder, torch, sizes):
    """A random model of the trained model's layout in NVIDIA's files; the model in torch and its codec."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    lm, mimi = load("lm"), load("mimi")
    torch.manual_seed(3)
    model, config = lm.TinyLM(sizes).eval(), mimi.sizes(sizes.card, sizes.codebooks, 4, 48, 16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    codec = mimi.build(config)
    tensors = {name: t.contiguous() for name, t in codec.state_dict().items() if not name.endswith("._embedding")}
    save_file(tensors, folder / "mimi.safetensors")
    save_file({name: t.bfloat16() for name, t in model.tensors().items()}, folder / "model.safetensors")
    codes = {"silence_codes": [1] * sizes.codebooks, "sine_codes": [2] * sizes.codebooks}
    (folder / "config.json").write_text(json.dumps({**sizes.config(400), "mimi": config, **codes}))
    return model


def test_the_model_in_training_is_the_model_of_the_package(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("moshi")
    core = pytest.importorskip("personaplex._core")
    sizes = load("lm").Sizes(codebooks=3, card=32)
    model = tiny_checkpoint(tmp_path, torch, sizes)
    rng = np.random.default_rng(0)
    voice, words = rng.integers(0, 32, (3, 4)).astype(np.int32), [5, 6, 7]
    package = core.Model(str(tmp_path), device="cpu", engine="graph", dtype="float32")
    session = package.session()
    session.set_probing(True)
    session.prompt(voice_codes=voice, text_tokens=words)
    heard, outputs, probes = rng.integers(0, 32, (20, 3)).astype(np.int32), [], []
    for codes in heard:
        outputs.append(session.step_codes(codes, decode=False).tokens)
        probes.append(session.probe())

    begin = 4 + 6 + len(words) + 6
    end = begin + len(heard) - 1  # the last frame's later codebooks come a step after it
    text, agent, user = np.full(end, 3), np.ones((3, end), int), np.full((3, end), 2)
    agent[:, :4], text[10 : 10 + len(words)], user[:, begin:] = voice, words, heard[:-1].T
    said = np.array(outputs)[1:]
    text[begin:], agent[:, begin:] = said[:, 0], said[:, 1:4].T
    tokens = load("talks").delayed(sizes, *(torch.from_numpy(x)[None] for x in (text, agent, user)))
    with torch.no_grad():
        hidden = model.temporal(tokens)[0, begin - 1 : end - 1]
        written = tokens[0, :4, begin:].T
        audio = model.depth(hidden, written[:, 0], written[:, 1:])
    for i, probe in enumerate(probes[:-1]):
        assert np.allclose(model.text(hidden)[i].detach(), probe["text_logits"], atol=1e-4)
        assert np.allclose(audio[:, i], probe["audio_logits"], atol=1e-4)


def test_the_language_model_learns_saves_and_resumes(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("moshi")
    pytest.importorskip("sentencepiece")
    shards, train_codec, train_lm = load("shards"), load("train_codec"), load("train_lm")
    rng, answers = np.random.default_rng(0), load("answers")
    tone = lambda seconds: (0.2 * np.sin(np.arange(int(24000 * seconds)) * rng.uniform(0.03, 0.1))).astype(np.float32)  # noqa: E731
    said = [(line, tone(0.3)) for line in (*answers.lines(), *answers.VOICE_LINES)]
    shards.write(tmp_path, "agents", "NATF0", said)
    shards.write(
        tmp_path, "users", "A", [("hello", tone(0.5)), ("what color is the sky", tone(0.8)), ("no", tone(0.3))]
    )
    torch.set_num_threads(1)
    common = [str(tmp_path), str(tmp_path / "codec"), "--batch", "2", "--frames", "6", "--bins", "16"]
    train_codec.main([*common, "--seconds", "3", "--codebooks", "3", "--unquantized", "1", "--report", "100"])
    codec, out = str(tmp_path / "codec" / "codec.pt"), str(tmp_path / "lm")
    common = [str(tmp_path), out, codec, "--pool", "4", "--batch", "2", "--fresh", "2", "--every", "2", "--report", "3"]
    train_lm.main([*common, "--seconds", "20", "--frames", "150"])
    load("encode_agents").main([str(tmp_path), codec, str(tmp_path / "agents.npz")])
    again = load("lines").kept(tmp_path / "agents.npz")
    assert {one.text for one in again} == {*answers.lines(), *answers.VOICE_LINES}
    first = train_lm.load(tmp_path / "lm")
    train_lm.main(
        [
            *common,
            "--seconds",
            "20",
            "--frames",
            "120",
            "--skip",
            "60",
            "--context",
            "100",
            "--resume",
            out,
            "--agents",
            str(tmp_path / "agents.npz"),
        ]
    )
    second = train_lm.load(tmp_path / "lm")
    assert second["step"] > first["step"] > 0
    assert second["voices"]["NATF0"].shape == (3, 25)
    assert bytes(second["tokenizer"].numpy()) == bytes(first["tokenizer"].numpy())
    assert not torch.equal(first["model"]["emb"], second["model"]["emb"])


def test_users_are_moved_and_their_questions_composed(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("moshi")
    lines, shards, hearing, rooms, warps = map(load, ("lines", "shards", "hearing", "rooms", "warps"))
    time = torch.arange(24000) / 24000
    hum = 0.1 * torch.sin(2 * torch.pi * 220 * time)[None].repeat(2, 1)
    one, two = torch.ones(2), torch.tensor([1.0, 1.3])
    assert torch.allclose(warps.moved(hum, 24000, one, one), hum, atol=1e-4)
    quick = warps.moved(hum, 18000, two, one)
    spectrum = torch.fft.rfft(quick[:, 4000:16000]).abs()
    assert spectrum.argmax(1).tolist() == [110, 110]  # of 2 Hz: the pitch stays
    assert torch.isfinite(rooms.channel(quick)).all()

    said = ("what is", "the capital of france", "excuse me", "where do you live", "please", "my brother sings")
    clips = [shards.Clip("A", text, np.zeros(24000, np.int16)) for text in said]
    users = lines.Users(clips, hearing.Vocabulary(said), "cpu")
    intents = load("intents").INTENTS
    asked = {text: users.asked["A"].get(number) for number, i in enumerate(intents) for text in i.phrasings}
    assert asked["the capital of france"] == [1]
    assert users.asked["A"][-1] == [2, 5]  # "excuse me" is both a part and a sentence
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        clip = users.composed("A", 1, 2.0, rng)
        ends = [start + 0.5 for _, start in clip.parts]
        assert clip.seconds == pytest.approx(ends[-1])
        assert all(-0.04 < start - end < 0.25 for (_, start), end in zip(clip.parts[1:], ends, strict=False))
        seen.add(tuple(said[number] for number, _ in clip.parts))
    assert ("what is", "the capital of france") in seen
    assert ("the capital of france",) in seen
    assert ("excuse me", "the capital of france", "please") in seen


def test_a_saved_model_is_split_into_files_that_travel(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("moshi")
    pytest.importorskip("sentencepiece")
    train_lm = load("train_lm")
    tensors = {str(i): torch.full((5_000_000,), float(i)) for i in range(4)}
    train_lm.save(tmp_path, {"model": tensors, "step": 7})
    sizes = [file.stat().st_size for file in sorted(tmp_path.glob("lm.*.pt"))]
    assert len(sizes) == 4
    assert max(sizes) < 15_100_000
    read = train_lm.load(tmp_path)
    assert read["step"] == 7
    assert all(torch.equal(read["model"][name], tensor) for name, tensor in tensors.items())


def test_words_are_compared_as_they_are_spoken():
    pytest.importorskip("soxr")
    measures = load("measures")
    assert measures.words("A cup of coffee is $2.") == ["a", "cup", "of", "coffee", "is", "two", "dollars"]
    assert measures.words("That makes 7!") == ["that", "makes", "seven"]
    wanted = ["a", "spider", "has", "eight", "legs"]
    assert measures.errors(wanted, wanted) == 0
    assert measures.errors(wanted, ["the", "spider", "has", "eight"]) == 2
    assert measures.errors(wanted, []) == 5
    assert measures.errors([], wanted) == 5


def test_shares_know_how_sure_they_are():
    measures = load("measures")
    share = measures.Share()
    for i in range(72):
        share.add(i >= 0)
    low, high = share.interval()
    assert share.value == high == 1.0
    assert 0.94 < low < 0.96
    share.add(0, 72)
    assert share.value == 0.5
    assert share.interval()[0] == pytest.approx(1 - share.interval()[1])
    mean, below, above = measures.mean_interval([1.0, 2.0, 3.0], np.random.default_rng(0))
    assert below < mean == 2.0 < above


def test_the_distance_of_spectra_sees_what_is_missing():
    measures = load("measures")
    t = np.arange(24000) / 24000
    low, both = np.sin(2 * np.pi * 200 * t), np.sin(2 * np.pi * 200 * t) + 0.1 * np.sin(2 * np.pi * 3000 * t)
    assert measures.mel_distance(both, both) == 0
    assert measures.mel_distance(both, low) > measures.mel_distance(both, 0.9 * both) > 0
    losses = pytest.importorskip("torch") and load("losses").Spectra()
    torch = importlib.import_module("torch")
    sounds = [torch.from_numpy(x.astype(np.float32))[None] for x in (both, low)]
    a, b = (torch.log(losses.mel1024 @ losses.magnitude(sound, 1024) + 1e-3) for sound in sounds)
    assert measures.mel_distance(both, low) == pytest.approx(float((a - b).abs().mean()), rel=0.01)


def test_questions_are_laid_out_in_time():
    pytest.importorskip("personaplex._core")
    talking = load("talking")
    one = talking.Asked(0.5, np.ones(2400, np.float32), "Blue.")
    two = talking.Asked(1.0, np.full(2400, 2, np.float32), "Green.")
    sound = talking.mixed([one, two], 1.05)
    assert len(sound) == int(1.05 * 24000)
    assert (sound[12000:14400] == 1).all()
    assert (sound[24000:] == 2).all()
    assert sound[:12000].sum() == 0
    said = talking.Said(
        [(3, "Bl"), (12, "ue."), (30, " Green.")], [np.zeros(480, np.float32), np.ones(480, np.float32)]
    )
    assert said.text(0, 20) == "Blue."
    assert talking.answered(said, talking.Asked(-0.1, np.zeros(0, np.float32), "blue"), 1.6)
    assert list(said.loud()) == [1]
