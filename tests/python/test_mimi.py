# tests/python/test_mimi.py: the codec streams: chunking changes nothing, and the future changes nothing.
import numpy as np
import pytest
import reference
from goldens import NAMES, golden, mimi_weights, model, prompted, relative_error


def sizes(name: str) -> tuple[int, int, int]:
    """(samples a frame, codebooks, codewords a codebook)."""
    data = golden(name)
    frame = len(data["mimi.pcm"]) // data["mimi.codes_stream"].shape[1]
    return frame, data.codebooks, data.manifest["mimi_kwargs"]["quantizer"]["bins"]


def noise(name: str, frames: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(frames * sizes(name)[0])).astype(np.float32)


def random_codes(name: str, frames: int, seed: int = 0) -> np.ndarray:
    _, q, bins = sizes(name)
    return np.random.default_rng(seed).integers(0, bins, (q, frames)).astype(np.int32)


@pytest.mark.parametrize("name", NAMES)
def test_frame_by_frame_equals_the_whole_clip(name):
    """Session.step sees one frame at a time, Model.encode and Model.decode a clip."""
    frame, q, _ = sizes(name)
    pcm = noise(name, 9)
    session = prompted(model(name), name)
    outputs = [session.step(part) for part in pcm.reshape(-1, frame)]
    tokens = np.stack([output.tokens for output in outputs])
    codes = model(name).encode(pcm)
    # A step answers one frame late: the user's codes of frame i come back with output i + max_delay.
    delay = max(golden(name).manifest["lm_kwargs"]["delays"])
    assert np.array_equal(tokens[delay:, 1 + q :].T, codes[:, : len(tokens) - delay])
    audio = np.concatenate([output.audio for output in outputs])
    assert relative_error(audio, model(name).decode(np.ascontiguousarray(tokens[:, 1 : 1 + q].T))) < 1e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", [1, 2, 5, 8])
def test_the_future_changes_no_code(name, kept):
    frame = sizes(name)[0]
    pcm = noise(name, 9)
    other = np.concatenate([pcm[: kept * frame], noise(name, 9 - kept, seed=1)])
    codes, changed = model(name).encode(pcm), model(name).encode(other)
    assert np.array_equal(codes[:, :kept], changed[:, :kept])
    assert not np.array_equal(codes, changed)
    assert np.array_equal(model(name).encode(pcm[: kept * frame]), codes[:, :kept])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", [1, 2, 5, 8])
def test_the_future_changes_no_sample(name, kept):
    frame = sizes(name)[0]
    codes, other = random_codes(name, 9), random_codes(name, 9, seed=1)
    other[:, :kept] = codes[:, :kept]
    pcm, changed = model(name).decode(codes), model(name).decode(other)
    assert np.array_equal(pcm[: kept * frame], changed[: kept * frame])
    assert not np.array_equal(pcm[kept * frame :], changed[kept * frame :])
    assert np.array_equal(model(name).decode(np.ascontiguousarray(codes[:, :kept])), pcm[: kept * frame])


@pytest.mark.parametrize("name", NAMES)
def test_the_window_forgets(name):
    """A change long ago is outside every window: the codec's context, and the few samples its convolutions keep."""
    data = golden(name)
    context = data.manifest["mimi_kwargs"]["transformer"]["context"]
    layers = data.manifest["mimi_kwargs"]["transformer"]["num_layers"]
    frames = layers * context // 2 + 12
    codes = random_codes(name, frames)
    other = codes.copy()
    other[:, 0] = (other[:, 0] + 1) % sizes(name)[2]
    pcm, changed = model(name).decode(codes), model(name).decode(other)
    frame = sizes(name)[0]
    assert not np.array_equal(pcm[:frame], changed[:frame])
    assert np.array_equal(pcm[-frame:], changed[-frame:])


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_the_nearest_codewords(name):
    """Each level takes the codeword nearest to what the earlier levels left, given the core's own latents."""
    pcm = noise(name, 20, seed=3)
    latent = model(name).probe_mimi(pcm)["latent"].astype(np.float64)
    codes = reference.rvq_codes(latent, mimi_weights(name), sizes(name)[1])
    assert np.mean(codes == model(name).encode(pcm)) > 0.99  # a float32 tie may fall the other way


def test_every_call_starts_afresh():
    pcm = noise("nano", 3)
    first = model("nano").encode(pcm)
    model("nano").encode(noise("nano", 2, seed=5))
    assert np.array_equal(model("nano").encode(pcm), first)
    codes = random_codes("nano", 3)
    audio = model("nano").decode(codes)
    model("nano").decode(random_codes("nano", 2, seed=5))
    assert np.array_equal(model("nano").decode(codes), audio)


def test_sessions_own_their_codec():
    """Two sessions fed alternately hear what each would hear alone."""
    frame = sizes("nano")[0]
    clips = [noise("nano", 4, seed=s).reshape(-1, frame) for s in (1, 2)]
    alone = []
    for clip in clips:
        session = prompted(model("nano"), "nano")
        alone.append(np.concatenate([session.step(part).audio for part in clip]))
    pair = [prompted(model("nano"), "nano") for _ in clips]
    mixed = [[], []]
    for parts in zip(*clips, strict=True):
        for i, part in enumerate(parts):
            mixed[i].append(pair[i].step(part).audio)
    for i in range(2):
        assert np.array_equal(np.concatenate(mixed[i]), alone[i])
    assert not np.array_equal(alone[0], alone[1])


@pytest.mark.parametrize(
    "pcm",
    [
        np.zeros(1919, np.float32),
        np.zeros(0, np.float32),
        np.full(1920, np.nan, np.float32),
        np.full(1920, np.inf, np.float32),
    ],
    ids=["short", "empty", "nan", "inf"],
)
def test_bad_audio_is_refused(pcm):
    with pytest.raises(ValueError, match=r"^\[Model\.encode\]"):
        model("nano").encode(pcm)


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((7, 2), np.int32),
        np.full((8, 2), -1, np.int32),
        np.full((8, 2), 64, np.int32),
    ],
    ids=["seven rows", "negative", "past the codebook"],
)
def test_bad_codes_are_refused(codes):
    with pytest.raises(ValueError, match=r"^\[Model\.decode\]"):
        model("nano").decode(codes)


def test_no_codes_are_no_samples():
    assert model("nano").decode(np.zeros((8, 0), np.int32)).shape == (0,)
