"""Small checkpoint directories in each layout that can be loaded: weights, config, tokenizer and a voice."""

import importlib.resources
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pt_files
from goldens import golden, lm_kwargs, mimi_weights
from test_voices import tar_gz

import tensors  # isort: skip  tests/golden, which goldens has put on the path
import weights  # isort: skip

from personaplex import _core

# Every K is a multiple of 64, as in the real model, so that all of it can be quantized.
KWARGS: dict[str, Any] = lm_kwargs("nano") | {
    "text_card": 512,
    "context": 64,
    "hidden_scale": 1.5,
    "depformer_dim": 64,
    "depformer_dim_feedforward": 96,
}
VOICE = pt_files.voice(count=5, dim=64)
MIMI = "tokenizer-e351c8d8-checkpoint125.safetensors"
GROUP = 64


def language_model(kwargs: dict[str, Any] = KWARGS) -> dict[str, np.ndarray]:
    made = weights.make(7, weights.lm_shapes(kwargs))
    return {key: tensors.as_bfloat16(value) for key, value in made.items()}


def config(kwargs: dict[str, Any] = KWARGS) -> dict[str, Any]:
    return kwargs | {"mimi": golden("nano").manifest["mimi_kwargs"]}


def nvidia(directory: Path, kwargs: dict[str, Any] = KWARGS, **more: Any) -> Path:
    """model.safetensors, Mimi, tokenizer, and a voice in voices.tgz; `more` goes into config.json."""
    directory.mkdir()
    tensors.write(directory / "model.safetensors", language_model(kwargs), bfloat16=True)
    tensors.write(directory / MIMI, mimi_weights("nano"))
    (directory / "voices.tgz").write_bytes(tar_gz([("voices/NATM0.pt", pt_files.save(VOICE))]))
    return _finish(directory, config(kwargs) | more)


def mlx(directory: Path, bits: int = 4) -> Path:
    """temporal, depformer and embeddings.safetensors, the first two quantized, and a voice in voices/."""
    directory.mkdir()
    files: dict[str, dict[str, np.ndarray]] = {"temporal": {}, "depformer": {}, "embeddings": {}}
    for key, value in language_model().items():
        owner = "depformer" if key.startswith(("depformer.", "depformer_in.")) else "embeddings"
        owner = "temporal" if key.startswith(("transformer.", "out_norm.")) else owner
        name = key.removeprefix("transformer.").removeprefix("depformer.")
        if owner == "embeddings" or key.endswith("alpha"):
            files[owner][name] = value
        else:
            stem = name.removesuffix("weight")  # in_proj_weight -> in_proj_scales; linear_in.weight -> linear_in.scales
            parts = mx.quantize(mx.array(value).astype(mx.bfloat16), group_size=GROUP, bits=bits)
            files[owner][name] = np.array(parts[0])
            files[owner][f"{stem}scales"], files[owner][f"{stem}biases"] = (
                np.array(part.astype(mx.float32)) for part in parts[1:]
            )
    for owner, content in files.items():
        tensors.write(directory / f"{owner}.safetensors", content, bfloat16=True)
    tensors.write(directory / "mimi.safetensors", mimi_weights("nano"))
    (directory / "voices").mkdir()
    voice = VOICE | {"cache": VOICE["cache"].astype(np.int64)}
    _core.write_tensors(str(directory / "voices" / "NATM0.safetensors"), voice, {})
    quantization = {"bits": bits, "group_size": GROUP, "quantized_components": ["temporal_transformer", "depformer"]}
    return _finish(directory, config() | {"quantization": quantization})


def _finish(directory: Path, content: dict[str, Any]) -> Path:
    (directory / "config.json").write_text(json.dumps(content))
    tokenizer = importlib.resources.files("personaplex") / "data" / "random.model"
    (directory / "tokenizer_spm_32k_3.model").write_bytes(tokenizer.read_bytes())
    return directory
