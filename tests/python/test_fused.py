# tests/python/test_fused.py: the fused engine on a CPU: golden data step by step, threads, and what a user sees of it.
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from goldens import DATA, NAMES, check, load, prompted, talk, user_codes, user_pcm

import personaplex
from personaplex import _core

SAMPLED = _core.Sampling(1.0, 0, 1.0, 0)


def fused(name: str, **options: object) -> _core.Model:
    return load(name, engine="fused", dtype="auto", **options)


def instruction_sets() -> list[str]:
    """Those of this machine: the error of an unknown one lists them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERSONAPLEX_CPU", "none")
        with pytest.raises(_core.DeviceError, match=r"expected one of .* on this machine") as raised:
            fused("nano")
    return str(raised.value).split("one of ")[1].split(" on this")[0].split(", ")


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("name", NAMES)
def test_golden_data(name, bits):
    chunks = (1, 3, 8, 32) if bits == 16 else (8, 32)
    lines = check.check(DATA / name, check.Options(engine="fused", bits=bits, chunks=chunks))
    assert all(line.ok and not line.skipped for line in lines), "\n".join(map(str, lines))


@pytest.mark.parametrize(("bits", "threads"), [(16, 1), (4, 2)])
@pytest.mark.parametrize("name", instruction_sets())
def test_golden_data_with_every_instruction_set(name, bits, threads, monkeypatch):
    monkeypatch.setenv("PERSONAPLEX_CPU", name)
    options = check.Options(engine="fused", bits=bits, threads=threads, steps=("8",), chunks=(32,))
    lines = check.check(DATA / "nano", options)
    assert all(line.ok for line in lines), "\n".join(map(str, lines))


def conversation(model: _core.Model, seed: int = 7) -> tuple[bytes, bytes]:
    """Tokens and audio of a sampled conversation."""
    outputs = [s.step(pcm) for s in [prompted(model, "nano", SAMPLED, seed)] for pcm in user_pcm("nano")]
    return np.stack([o.tokens for o in outputs]).tobytes(), np.concatenate([o.audio for o in outputs]).tobytes()


def test_any_number_of_threads_gives_the_same_bits():
    expected = None
    for threads in (1, 2, 3):
        model = fused("nano", threads=threads)
        got = conversation(model)
        assert expected in (None, got)
        expected = got
        model.unload()


def test_two_models_share_the_pool():
    """The later one decides how many threads there are; both go on."""
    first = fused("nano", threads=1)
    expected = conversation(first)
    second = fused("nano", threads=2, kv_bits=8)
    assert conversation(first) == expected
    second.unload()
    assert conversation(first) == expected
    first.unload()


def test_sessions_in_two_threads_give_what_they_give_alone():
    model = fused("nano")
    expected = [conversation(model, seed) for seed in range(4)]
    assert len(set(expected)) == 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seed: conversation(model, seed), range(4))) == expected
    model.unload()


def check_clones(model):
    """Clones share a past and go their own ways, which depend on their seeds alone."""
    session = prompted(model, "nano", SAMPLED, 1)
    codes = user_codes("nano")
    talk(session, codes[:3])
    clones = [session.clone(seed=seed) for seed in (1, 1, 2)]
    same, again, other = (talk(clone, codes[3:]).tobytes() for clone in clones)
    assert same == again != other
    assert talk(session, codes[3:]).tobytes() == same


def test_clones_share_a_past_and_go_their_own_ways():
    model = fused("nano", kv_bits=8)
    check_clones(model)
    model.unload()


def test_int8_keys_and_values_are_close():
    model, small = (fused("nano", kv_bits=bits) for bits in (16, 8))
    columns = np.random.default_rng(0).integers(0, 50, (17, 40)).astype(np.int32)
    a, b = (m.probe_temporal(columns, chunk=8)["hidden"] for m in (model, small))
    assert 0 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.0135
    for m in (model, small):
        m.unload()


def test_a_response_from_python():
    model = personaplex.load("random:tiny", device="cpu", kv_bits=8, threads=1)
    assert model.info["engine"] == "fused"
    response = model.respond(np.zeros(24000, np.float32), sample_rate=24000, seed=3)
    assert len(response.audio.samples) >= 24000
    assert np.isfinite(response.audio.samples).all()
    model.unload()
