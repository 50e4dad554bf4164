"""Writes what ships: `python export.py LM_FOLDER codec.pt OUT [--bits 4|16]`, which needs torch and the package itself.

16 bits: NVIDIA's layout in bfloat16, the original. 4 bits: the MLX layout, transformers in 4 bits, embeddings and heads
in 8. The 18 voices are made by the package from the codes of their introductions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import answers
import lines
import lm
import numpy as np
import talks
import torch
import train_lm
from safetensors.torch import save_file
from torch import Tensor

GROUP = 64
FILES = {"transformer": "temporal", "out_norm": "temporal", "depformer": "depformer", "depformer_in": "depformer"}
EIGHT = "embeddings"  # the file whose matrices are worth 8 bits: one wrong code is one wrong sound


def codec_tensors(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mimi in 16 bits; every codebook as its centres, each used once."""
    found: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith("embedding_sum"):
            usage = stored[name.replace("embedding_sum", "cluster_usage")]
            found[name] = (tensor / usage.clamp(min=1e-5)[:, None]).half().contiguous()
        elif name.endswith("cluster_usage"):
            found[name] = torch.ones_like(tensor)
        elif not name.endswith(("._embedding", "_initialized")):
            found[name] = tensor.half().contiguous()
    return found


def quantized(name: str, weight: Tensor, bits: int) -> dict[str, Tensor]:
    """MLX's affine quantization of one matrix: 32-bit words, and scales and biases of groups of 64 in float16."""
    import mlx.core as mx

    parts = mx.quantize(mx.array(weight.float().numpy()), group_size=GROUP, bits=bits)
    stem = name.removesuffix("weight")
    words, scales, biases = (torch.from_numpy(np.array(part)) for part in parts)
    return {f"{stem}weight": words, f"{stem}scales": scales.half(), f"{stem}biases": biases.half()}


def mlx_files(tensors: Mapping[str, Tensor], bits: int) -> dict[str, dict[str, Tensor]]:
    """File -> tensors of the MLX layout, `bits` in the transformers."""
    files: dict[str, dict[str, Tensor]] = {"temporal": {}, "depformer": {}, "embeddings": {}}
    for name, tensor in tensors.items():
        stem = name.split(".")[0]
        file = FILES.get(stem, "embeddings")
        short = name.split(".", 1)[1] if stem in ("transformer", "depformer") else name
        if tensor.dim() == 2:
            files[file].update(quantized(short, tensor, 8 if file == EIGHT else bits))
        else:
            files[file][short] = tensor.bfloat16()
    return files


def config(sizes: lm.Sizes, state: Mapping[str, Any], codec: Mapping[str, Any], bits: int) -> dict[str, Any]:
    found = {
        **sizes.config(state["context"]),
        "mimi": codec,
        "silence_codes": state["silence"].tolist(),
        "sine_codes": state["sine"].tolist(),
        "spacer_frames": talks.GAP,
        "text_prompts": list(answers.PROMPTS),
    }
    if bits != 16:
        found["quantization"] = {"bits": bits, "group_size": GROUP, "quantized_components": ["temporal", "depformer"]}
    return found


def write_voices(out: Path, voices: Mapping[str, Tensor]) -> None:
    """Presets as the package makes them from codes; the prompt's first frame is lost, so it is given twice."""
    from personaplex import _core

    (out / "voices").mkdir(exist_ok=True)
    model = _core.Model(str(out), device="cpu", engine="graph", dtype="float32")
    for name, codes in voices.items():
        session = model.session()
        given = torch.cat([codes[:, :1], codes], 1).numpy().astype(np.int32)
        session.prompt(voice_codes=np.ascontiguousarray(given))
        embeddings, cache = session.voice_preset()
        if len(embeddings) != lines.VOICE:
            raise ValueError(f"[export] expected {lines.VOICE} frames of voice {name}, got {len(embeddings)}.")
        tensors = {
            "embeddings": torch.from_numpy(embeddings).half()[:, None, None].contiguous(),
            "cache": torch.from_numpy(cache)[None].contiguous(),
        }
        save_file(tensors, out / "voices" / f"{name}.safetensors", {"format": "personaplex-voice"})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lm", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bits", type=int, choices=(4, 8, 16), default=4)
    options = parser.parse_args(arguments)
    state = train_lm.load(options.lm)
    stored = torch.load(options.codec, map_location="cpu", weights_only=True)
    sizes = lm.Sizes(**state["sizes"])
    model = lm.TinyLM(sizes)
    model.load_state_dict(state["model"])
    tensors = model.tensors()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.bits == 16:
        save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, out / "model.safetensors")
    else:
        for file, content in mlx_files(tensors, options.bits).items():
            save_file(content, out / f"{file}.safetensors")
    save_file(codec_tensors(stored["codec"]), out / "mimi.safetensors")
    (out / "tokenizer.model").write_bytes(bytes(state["tokenizer"].numpy()))
    text = json.dumps(config(sizes, state, stored["config"], options.bits), indent=1)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")
    write_voices(out, state["voices"])
    for file in out.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes for its owner alone
    total = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {total / 1e6:.2f} MB, {sum(t.numel() for t in tensors.values())} parameters", flush=True)


if __name__ == "__main__":
    main()
