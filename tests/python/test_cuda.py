# tests/python/test_cuda.py: the fused engine on an NVIDIA GPU; skipped where there is none that can be used.
import functools

import numpy as np
import pytest
from goldens import DATA, NAMES, check, load, prompted, talk, user_codes
from test_fused import SAMPLED, check_clones, conversation

from personaplex import _core, nvrtc
from personaplex.cache_dir import cache_dir


@functools.cache
def missing() -> str:
    """Why there is no GPU to test on, or an empty string."""
    try:
        on_gpu().unload()
    except _core.DeviceError as error:
        return str(error)
    return ""


def on_gpu(name: str = "nano", **options: object) -> _core.Model:
    where = {"device": "cuda", "nvrtc": nvrtc.folders(), "kernel_cache": str(cache_dir() / "kernels")}
    return load(name, engine="fused", dtype="auto", **where, **options)


@pytest.fixture(autouse=True)
def _gpu():
    if missing():
        pytest.skip(missing())


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("name", NAMES)
def test_golden_data(name, bits):
    lines = check.check(DATA / name, check.Options(engine="fused", device="cuda", bits=bits, chunks=(8, 32)))
    assert all(line.ok and not line.skipped for line in lines), "\n".join(map(str, lines))


def test_info_and_dispatches():
    model = on_gpu(kv_bits=8)
    info = model.info
    assert (info["device"], info["engine"], info["kv_dtype"]) == ("cuda", "fused", "int8")
    assert info["device_name"]
    assert info["threads"] is None
    conversation(model)
    assert model.calls
    model.unload()


def test_a_conversation_repeats_itself():
    model = on_gpu()
    expected = conversation(model)
    assert conversation(model) == expected
    model.unload()
    again = on_gpu()
    assert conversation(again) == expected
    again.unload()


def test_clones_share_a_past_and_go_their_own_ways():
    model = on_gpu(kv_bits=8)
    check_clones(model)
    model.unload()


def test_a_saved_state_goes_on_as_it_did(tmp_path):
    model = on_gpu()
    session = prompted(model, "nano", SAMPLED, 1)
    codes = user_codes("nano")
    talk(session, codes[:2])
    state = session.snapshot()
    state.save(str(tmp_path / "state"), "key")
    session.restore(state)
    other = model.session(SAMPLED, 1)
    other.restore(model.load_snapshot(str(tmp_path / "state"), "key"))
    assert (talk(other, codes[2:]) == talk(session, codes[2:])).all()
    model.unload()


def test_the_memory_is_read_fast():
    speeds = _core.read_gpu_bandwidth(256, 2, nvrtc.folders(), str(cache_dir() / "kernels"))
    assert set(speeds) == {"read_memory_u1", "read_memory_u4", "read_memory_u8"}
    assert all(20 < np.median(passes) < 20_000 for passes in speeds.values())
