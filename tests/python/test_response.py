"""What an answer holds, and the prompt snapshots behind its quick start."""

import json
import os

import numpy as np
import pytest
from fakes import PAD, FakeModel, FakeSession, make_model, says

import personaplex
from personaplex import _core, api, prompt_cache
from personaplex.text import Tokenizer, Word

SP = Tokenizer.of_random()._sp


def user(frames, level=0.25):
    return np.full(frames * 1920, level, np.float32), 24000


def test_audio_text_words_and_tokens_belong_together():
    hello, friend = SP.encode("hello"), SP.encode("friend")
    core = FakeModel(says(*hello, (PAD, 0.1), *friend, start=1))
    response = make_model(core).respond(user(20), max_steps=0, seed=3, voice="NATF1", system_prompt="teacher")
    assert response.transcript == "hello friend"
    count = len(hello)
    assert response.words == [
        Word("hello", 0.08, round(0.08 * (1 + count), 2)),
        Word("friend", round(0.08 * (2 + count), 2), round(0.08 * (2 + count + len(friend)), 2)),
    ]
    assert response.tokens.shape == (20, 17)
    assert response.tokens.dtype == np.int32
    assert response.tokens[1, 0] == hello[0]
    assert response.audio.duration == pytest.approx(1.6)
    assert np.abs(response.audio.samples[1920:3840]).max() == 0.5
    assert (response.user.samples == 0.25).all()
    assert response.stereo.samples.shape == (20 * 1920, 2)
    np.testing.assert_array_equal(response.stereo.samples[:, 1], response.audio.samples)


def test_metadata_is_json_and_complete():
    response = make_model().respond(user(10), max_steps=0, seed=3, voice="NATF1", system_prompt="teacher")
    facts = json.loads(json.dumps(response.metadata))
    assert facts["seed"] == 3
    assert facts["voice"] == "NATF1"
    assert facts["system_prompt"]["name"] == "teacher"
    assert facts["system_prompt"]["tokens"] == facts["tokens"]["prompt"] > 10
    assert facts["durations"] == {"input": 0.8, "output": 0.8}
    assert facts["tokens"]["input_frames"] == facts["tokens"]["output_frames"] == 10
    # The scripted steps take 1, 2, .. 10 ms.
    assert facts["step_ms"] == {"p50": 5.5, "p95": 9.55, "p99": 9.91}
    assert facts["versions"]["personaplex"] == personaplex.__version__
    assert facts["rtf"] == pytest.approx(facts["elapsed"] / 0.8, abs=1e-3)


def test_it_shows_in_a_notebook():
    html = make_model(FakeModel(says(*SP.encode("hello"), *SP.encode("<b>")))).respond(user(12), max_steps=0)
    assert "<audio controls" in html._repr_html_()
    assert "&lt;b&gt;" in html._repr_html_()


def test_streamed_text_is_the_transcript():
    core = FakeModel(says(*SP.encode("h\u00e9 \N{GRINNING FACE} you")))
    with make_model(core).respond_stream(user(30), keep=True, max_steps=0) as generation:
        text = "".join(out.text for out in generation) + generation.rest
        assert text.strip() == generation.response().transcript == "h\u00e9 \N{GRINNING FACE} you"
    cut = FakeModel(says(*SP.encode("\N{GRINNING FACE}")[:3]))
    with make_model(cut).respond_stream(user(3), keep=True, max_steps=0) as generation:
        assert "".join(out.text for out in generation) + generation.rest == " \ufffd"


def test_a_session_step_by_step():
    core = FakeModel(says(*SP.encode("hello")))
    with make_model(core).session(voice="NATM1", system_prompt="", seed=5) as session:
        out = session.step(np.zeros(1920, np.int16))
        assert (out.index, out.audio.shape, out.tokens.shape, out.step_ms) == (0, (1920,), (17,), 1.0)
        other = session.clone(seed=6)
        assert (session.seed, other.seed) == (5, 6)
        assert [session.step(np.zeros(1920)).index, session.step(np.zeros(1920)).index] == [1, 2]
        assert other.step(np.zeros(1920)).index == 1
        forced = session.step(np.zeros(1920), text=PAD)
        assert (forced.text_token, forced.text) == (PAD, "")
        session.reset(seed=9)
        assert (session.frames, session.seed) == (0, 9)
        other.close()
    with pytest.raises(personaplex.StreamError, match="closed"):
        session.step(np.zeros(1920))


@pytest.mark.parametrize(
    "pcm", [np.zeros(960), np.zeros((1, 1920)), np.zeros(1920, np.int64), np.full(1920, np.nan), "x", None]
)
def test_a_step_takes_one_whole_frame(pcm):
    core = FakeModel()
    with make_model(core).session(voice="none") as session:
        with pytest.raises(ValueError, match=r"\[Session.step\]"):
            session.step(pcm)
        assert session.frames == 0


def test_two_threads_in_one_session_are_refused():
    import threading

    core = FakeModel(step_seconds=0.2)
    with make_model(core).session(voice="none") as session:
        thread = threading.Thread(target=session.step, args=(np.zeros(1920),))
        thread.start()
        while not session._busy.locked():
            pass
        with pytest.raises(personaplex.StreamError, match="another thread"):
            session.step(np.zeros(1920))
        thread.join()
        assert session.step(np.zeros(1920)).index == 1


# Prompt snapshots


def opened(model, **options):
    with model.session(**{"voice": "NATM0", "system_prompt": "teacher", **options}) as session:
        return session._core.prompted


def test_the_same_prompt_runs_once():
    core = FakeModel()
    model = make_model(core)
    first = opened(model, seed=1)
    assert opened(model, seed=2) == first
    assert (core.prompts, core.restored) == (1, 1)
    assert core.sessions[1].seed == 2
    assert opened(model, voice="NATM1") != first
    assert opened(model, system_prompt="") != first
    assert core.prompts == 3


def test_memory_keeps_only_a_few():
    core = FakeModel()
    model = make_model(core)
    for n in range(prompt_cache.MEMORY_ENTRIES + 1):
        opened(model, system_prompt=f"Prompt {n}.")
    opened(model, system_prompt="Prompt 1.")
    opened(model, system_prompt="Prompt 0.")
    assert core.prompts == prompt_cache.MEMORY_ENTRIES + 2


def test_off_keeps_nothing(tmp_path):
    core = FakeModel()
    model = make_model(core, prompt_cache="off", cache_dir=tmp_path)
    opened(model)
    opened(model)
    assert (core.prompts, core.restored) == (2, 0)
    assert not list(tmp_path.iterdir())


def snapshots(tmp_path):
    return sorted((tmp_path / "prompts").glob("*.safetensors"))


def test_disk_serves_the_next_process(tmp_path):
    opened(make_model(prompt_cache="disk", cache_dir=tmp_path))
    assert len(snapshots(tmp_path)) == 1
    core = FakeModel()
    opened(make_model(core, prompt_cache="disk", cache_dir=tmp_path))
    assert (core.prompts, core.restored) == (0, 1)
    assert not list((tmp_path / "prompts").glob(".*"))


def test_auto_writes_only_slow_prompts(tmp_path, monkeypatch):
    opened(make_model(prompt_cache="auto", cache_dir=tmp_path))
    assert snapshots(tmp_path) == []
    monkeypatch.setattr(prompt_cache, "DISK_WORTH_SECONDS", 0.0)
    opened(make_model(prompt_cache="auto", cache_dir=tmp_path))
    assert len(snapshots(tmp_path)) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b'{"key": "another", "prompt": "x"}'])
def test_a_broken_snapshot_is_written_again(tmp_path, caplog, damage):
    opened(make_model(prompt_cache="disk", cache_dir=tmp_path))
    good = snapshots(tmp_path)[0].read_bytes()
    snapshots(tmp_path)[0].write_bytes(damage)
    core = FakeModel()
    opened(make_model(core, prompt_cache="disk", cache_dir=tmp_path))
    assert core.prompts == 1
    assert "will be written again" in caplog.text
    assert snapshots(tmp_path)[0].read_bytes() == good


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    opened(make_model(prompt_cache="disk", cache_dir=tmp_path / "file"))
    assert "cannot write" in caplog.text


def test_the_oldest_files_go_first(tmp_path, monkeypatch):
    model = make_model(prompt_cache="disk", cache_dir=tmp_path)
    opened(model, system_prompt="one")
    (oldest,) = snapshots(tmp_path)
    os.utime(oldest, (1, 1))
    monkeypatch.setattr(prompt_cache, "MAX_DISK_BYTES", int(oldest.stat().st_size * 1.5))
    opened(model, system_prompt="two")
    (left,) = snapshots(tmp_path)
    assert left != oldest


@pytest.mark.parametrize(
    "info",
    [
        {"engine": "fused"},
        {"device": "cuda"},
        {"dtype": "bfloat16"},
        {"bits": {"temporal": 4}},
        {"group_size": 32},
        {"mlx_version": "1"},
        {"weights_seed": 1},
        {"kv_dtype": "int8"},
        {"kept_16bit": ["emb.0.weight"]},
        {"compiled": True},
    ],
    ids=str,
)
def test_nothing_computed_otherwise_is_reused(tmp_path, info):
    opened(make_model(prompt_cache="disk", cache_dir=tmp_path))
    core = FakeModel(info=info)
    opened(make_model(core, prompt_cache="disk", cache_dir=tmp_path))
    assert core.prompts == 1
    assert len(snapshots(tmp_path)) == 2


def test_the_core_tells_all_that_the_key_is_made_of(tiny_model):
    """A name that the core's info lacked would be null in every key."""
    info = tiny_model._core.info
    assert set(prompt_cache.COMPUTED_WITH) | {"mlx_version", "weights_seed"} <= set(info)
    key = json.loads(prompt_cache.cache_key("w", info, tiny_model.config, "v", [1]))
    assert {name: key[name] for name in prompt_cache.COMPUTED_WITH} == {
        name: info[name] for name in prompt_cache.COMPUTED_WITH
    }
    assert {"engine", "kv_dtype"} <= set(prompt_cache.COMPUTED_WITH)
    assert (key["kept_16bit"], key["mlx"]) == ([], info["mlx_version"])


def test_the_seed_of_random_weights_is_in_their_digest(tiny_model, tmp_path):
    digests = []
    for seed in (0, 1):
        core = _core.Model("random:tiny", device="cpu", weights_seed=seed)
        digests.append(prompt_cache.weights_digest(tiny_model._source, core.info, tmp_path))
        core.unload()
    assert digests[0] != digests[1]


def test_changed_weights_are_another_model(tmp_path, monkeypatch):
    checkpoint = tmp_path / "model"
    (checkpoint / "voices").mkdir(parents=True)
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(b"one")

    def prompts():
        core = FakeModel()
        opened(make_model(core, checkpoint, prompt_cache="disk", cache_dir=tmp_path / "c"), voice="none")
        return core.prompts

    assert [prompts(), prompts()] == [1, 0]
    assert "model.safetensors|3|" in (tmp_path / "c" / "hashes.json").read_text()
    weights.write_bytes(b"two")
    os.utime(weights, (5, 5))
    assert prompts() == 1
    assert (tmp_path / "c" / "hashes.json").read_text().count("model.safetensors|") == 1
    (checkpoint / "config.json").write_text("{}")
    assert prompts() == 1
    (tmp_path / "c" / "hashes.json").write_text("damaged")
    assert prompts() == 0


def test_hub_blobs_are_not_hashed_again(tmp_path):
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"not what the name says")
    checkpoint = tmp_path / "snapshot"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").symlink_to(blob)
    memory = prompt_cache._HashMemory(tmp_path / "hashes.json")
    assert memory.sha256(checkpoint / "model.safetensors") == "ab" * 32


def test_a_snapshot_that_does_not_fit_is_passed_over(tmp_path, monkeypatch):
    core = FakeModel()
    model = make_model(core)
    opened(model)

    def refuse(self, snapshot):
        raise personaplex.WeightsError("[Session.restore] another shape.")

    monkeypatch.setattr(FakeSession, "restore", refuse)
    opened(model)
    assert core.prompts == 2


# personaplex.load and personaplex.respond


def test_the_default_model_is_loaded_once(monkeypatch):
    loads = []

    def load(name):
        loads.append(make_model())
        return loads[-1]

    monkeypatch.setattr(api, "load", load)
    monkeypatch.setattr(api, "_kept", {})
    for _ in range(2):
        assert len(personaplex.respond(user(1), max_steps=0).tokens) == 1
    assert len(loads) == 1
    loads[0].unload()
    personaplex.respond(user(1), max_steps=0)
    assert len(loads) == 2
    own = make_model()
    personaplex.respond(user(1), own, max_steps=0)
    assert own._core.prompts == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3}, "bits 4, 8, 16, got 3"),
        ({"head_bits": 2}, "head_bits"),
        ({"group_size": 16}, "group_size 32, 64"),
        ({"depformer_steps": 9}, "depformer_steps 8, 16"),
        ({"prompt_cache": "maybe"}, "prompt_cache"),
        ({"context": 0}, "context"),
    ],
)
def test_load_checks_its_arguments_first(options, message):
    with pytest.raises(ValueError, match=message):
        personaplex.load("random:tiny", **options)


def test_info_and_warmup():
    model = make_model()
    assert model.info["name"] == model.name == "random:tiny"
    assert model.config["rows"] == 17
    assert model.warmup() == 2.0
    assert repr(model) == "Model('random:tiny', device='cpu', engine='graph')"
    assert len(model.voices()) == 18
