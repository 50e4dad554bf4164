# tests/golden/weights.py: random weights as a pure function of (seed, key, shape), so that no directory stores them.
from __future__ import annotations

import math
import zlib

import numpy as np

Shapes = dict[str, list[int]]


def noise(seed: int, key: str, shape: list[int]) -> np.ndarray:
    """Uniform noise of variance 1, float32. Built from raw generator bits, which numpy keeps stable across versions."""
    bits = np.random.PCG64([seed, zlib.crc32(key.encode())]).random_raw(math.prod(shape))
    uniform = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    return (uniform * np.float32(math.sqrt(3.0))).reshape(shape)


def lm_weight(seed: int, key: str, shape: list[int]) -> np.ndarray:
    """One tensor of the language model, float32 (the file rounds it to bfloat16)."""
    value = noise(seed, key, shape)
    if key.endswith("alpha"):
        return 1 + np.float32(0.1) * value
    if key.startswith(("emb.", "text_emb.")):
        return np.float32(0.5) * value
    if key.startswith(("depformer_emb.", "depformer_text_emb.")):
        return value
    gain = 3.0 if key.startswith(("linears.", "text_linear.")) else 1.0  # heads: margins well above rounding
    return np.float32(gain / math.sqrt(shape[-1])) * value


def mimi_weight(seed: int, key: str, shape: list[int], codebooks: dict[str, list[list[float]]]) -> np.ndarray:
    """One tensor of Mimi, float32. `codebooks`: key -> [mean, deviation], so that the codewords cover the latents."""
    value = noise(seed, key, shape)
    if key.endswith("_initialized"):
        return np.ones(shape, np.float32)
    if key.endswith("cluster_usage"):
        usage = 1 + np.float32(0.4) * value
        usage[::29] = 1e-6  # under the 1e-5 at which the reference clamps
        return usage
    if key.endswith("embedding_sum"):
        usage = mimi_weight(seed, key.replace("embedding_sum", "cluster_usage"), shape[:1], codebooks)
        mean, deviation = np.asarray(codebooks.get(key, [[0.0], [1.0]]), np.float32)
        return (value * deviation + mean) * np.maximum(usage, np.float32(1e-5))[:, None]
    if ".layer_scale_" in key:
        return np.float32(0.3) + np.float32(0.05) * value
    if ".norm" in key and key.endswith(".weight"):
        return 1 + np.float32(0.1) * value
    if key.endswith(".bias"):
        return np.float32(0.05) * value
    if "convtr" in key:  # [in, out, kernel], each output sample sums two kernel taps of every input channel
        return np.float32(1.2 / math.sqrt(2 * (shape[0] if shape[1] > 1 else 1))) * value
    return np.float32(1.1 / math.sqrt(math.prod(shape[1:]))) * value


def make(seed: int, shapes: Shapes, codebooks: dict[str, list[list[float]]] | None = None) -> dict[str, np.ndarray]:
    """All weights of one file: Mimi's where `codebooks` is given, else the language model's."""
    if codebooks is None:
        return {key: lm_weight(seed, key, shape) for key, shape in shapes.items()}
    return {key: mimi_weight(seed, key, shape, codebooks) for key, shape in shapes.items()}


def lm_shapes(kwargs: dict) -> Shapes:
    """Every key of NVIDIA's model.safetensors for the given constructor arguments."""
    dim, card, text_card, steps = kwargs["dim"], kwargs["card"], kwargs["text_card"], kwargs["dep_q"]
    small, hidden = kwargs["depformer_dim"], 2 * int(kwargs["hidden_scale"] * dim) // 3
    small_hidden = 2 * kwargs["depformer_dim_feedforward"] // 3
    shapes: Shapes = {"text_emb.weight": [text_card + 1, dim], "text_linear.weight": [text_card, dim]}
    shapes |= {f"emb.{k}.weight": [card + 1, dim] for k in range(kwargs["n_q"])}
    shapes |= {"out_norm.alpha": [1, 1, dim], "depformer_text_emb.weight": [text_card + 1, small]}
    for i in range(kwargs["num_layers"]):
        layer = f"transformer.layers.{i}."
        shapes |= {layer + "norm1.alpha": [1, 1, dim], layer + "norm2.alpha": [1, 1, dim]}
        shapes |= {layer + "self_attn.in_proj_weight": [3 * dim, dim], layer + "self_attn.out_proj.weight": [dim, dim]}
        shapes[layer + "gating.linear_in.weight"] = [2 * hidden, dim]
        shapes[layer + "gating.linear_out.weight"] = [dim, hidden]
    for i in range(kwargs["depformer_num_layers"]):
        layer = f"depformer.layers.{i}."
        shapes |= {layer + "norm1.alpha": [1, 1, small], layer + "norm2.alpha": [1, 1, small]}
        shapes[layer + "self_attn.in_proj_weight"] = [3 * steps * small, small]
        shapes[layer + "self_attn.out_proj.weight"] = [steps * small, small]
        for k in range(steps):
            shapes[layer + f"gating.{k}.linear_in.weight"] = [2 * small_hidden, small]
            shapes[layer + f"gating.{k}.linear_out.weight"] = [small, small_hidden]
    for k in range(steps):
        shapes |= {f"depformer_in.{k}.weight": [small, dim], f"linears.{k}.weight": [card, small]}
        if k + 1 < steps:
            shapes[f"depformer_emb.{k}.weight"] = [card + 1, small]
    return shapes
