"""Codecs of other sizes than PersonaPlex-7B's 8 codebooks of 2048: both engines load them and compute the same."""

import json

import checkpoints
import numpy as np
import pytest
from goldens import golden, relative_error

import tensors  # isort: skip  tests/golden, which goldens has put on the path
import weights  # isort: skip

from personaplex import _core

SIZES = [(8, 512), (12, 256), (16, 256), (20, 128), (4, 1024)]  # codebooks of the agent, codewords of each
FRAMES = 12
ROUNDING = 0.01  # the fused engine keeps keys and values, and may multiply, in bfloat16


def mimi(codebooks: int, bins: int) -> dict[str, np.ndarray]:
    """Mimi of the golden model `nano` with other codebooks."""
    manifest = golden("nano").manifest
    shapes = {key: shape for key, (shape, _) in manifest["weights"]["mimi"].items() if "_codebook" not in key}
    levels = [("rvq_first", 0, 1.0), *(("rvq_rest", i, 0.8**i) for i in range(codebooks - 1))]
    found = weights.make(manifest["seed"], shapes, manifest["codebooks"])
    for part, level, size in levels:
        prefix = f"quantizer.{part}.vq.layers.{level}._codebook."
        depth = manifest["mimi_kwargs"]["quantizer"]["dimension"]
        found[f"{prefix}embedding_sum"] = size * weights.noise(3, prefix, [bins, depth])
        found[f"{prefix}cluster_usage"] = np.ones(bins, np.float32)
    return found


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def models(request, tmp_path_factory):
    """The fused engine's and the graph engine's model of one checkpoint."""
    codebooks, bins = request.param
    folder = tmp_path_factory.mktemp("sizes")
    one = [0] + [1] * (codebooks - 1)
    kwargs = checkpoints.KWARGS | {"n_q": 2 * codebooks, "dep_q": codebooks, "card": bins, "delays": [0, *one, *one]}
    tensors.write(folder / "model.safetensors", checkpoints.language_model(kwargs), bfloat16=True)
    tensors.write(folder / "mimi.safetensors", mimi(codebooks, bins))
    config = checkpoints.config(kwargs)
    quantizer = config["mimi"]["quantizer"] | {"n_q": codebooks, "bins": bins}
    codes = {"silence_codes": list(range(codebooks)), "sine_codes": list(range(1, codebooks + 1))}
    config = config | codes | {"mimi": config["mimi"] | {"quantizer": quantizer}}
    (folder / "config.json").write_text(json.dumps(config))
    made = [_core.Model(str(folder), device="cpu", engine=engine) for engine in ("fused", "graph")]
    yield made
    for model in made:
        model.unload()


def test_the_codec(models):
    rng = np.random.default_rng(1)
    pcm = rng.uniform(-0.3, 0.3, FRAMES * 1920).astype(np.float32)
    config = models[0].config
    codes = [model.encode(pcm) for model in models]
    assert codes[0].shape == (config["codebooks"], FRAMES)
    assert (codes[0] == codes[1]).mean() > 0.9
    assert codes[0].max() >= config["card"] // 2
    drawn = rng.integers(0, config["card"], codes[0].shape).astype(np.int32)
    sounds = [model.decode(drawn) for model in models]
    assert relative_error(*sounds) < 1e-4
    assert np.abs(sounds[0]).max() > 0


def test_the_language_model(models):
    rng = np.random.default_rng(2)
    config = models[0].config
    codebooks, card = config["codebooks"], config["card"]
    assert config["depformer_steps"] == codebooks
    assert config["rows"] == 2 * codebooks + 1
    tokens = rng.integers(0, card, (config["rows"], FRAMES)).astype(np.int32)
    tokens[0] = rng.integers(0, config["text_card"], FRAMES)
    hidden = [model.probe_temporal(tokens)["hidden"] for model in models]
    assert relative_error(*hidden) < ROUNDING
    given = rng.integers(0, card, (FRAMES, codebooks)).astype(np.int32)
    logits = [model.probe_depformer(hidden[0], tokens[0], given) for model in models]
    assert logits[0].shape == (FRAMES, codebooks, card)
    assert relative_error(*logits) < ROUNDING


def test_a_talk(models):
    """Close draws may differ, and then all that follows; what is heard is the same but for a close codeword."""
    rng = np.random.default_rng(3)
    frames = rng.uniform(-0.3, 0.3, (FRAMES, 1920)).astype(np.float32)
    config = models[0].config
    rows = []
    for model in models:
        session = model.session(_core.Sampling(text_temperature=0, audio_temperature=0), 0)
        session.prompt(text_tokens=[5, 6, 7])
        outputs = [session.step(frame) for frame in frames]
        rows.append(np.stack([output.tokens for output in outputs]))
        assert all(np.isfinite(output.audio).all() for output in outputs)
        assert rows[-1].shape == (FRAMES, config["rows"])
        assert 0 <= rows[-1][:, 1:].min() <= rows[-1][:, 1:].max() < config["card"]
    heard = [row[:, 1 + config["codebooks"] :] for row in rows]
    assert (heard[0] == heard[1]).mean() > 0.9
    assert len(np.unique(heard[0])) > FRAMES
