"""The tiny Mimi, built from the modules of PyPI `moshi` with the sizes that config.json carries."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_TORCH_COMPILE", "1")

import torch
from moshi.models.compression import MimiModel
from moshi.modules import SEANetDecoder, SEANetEncoder, transformer
from moshi.quantization import SplitResidualVectorQuantizer
from torch import nn

RATE, FRAME = 24000, 1920


def sizes(bins: int = 256, codebooks: int = 12, filters: int = 16, dim: int = 96, code: int = 64) -> dict[str, Any]:
    """config.json's part `mimi`. 2.0 million parameters as it stands; 1200 bit/s. Twelve codebooks of 256 cost the
    language model no more than eight of 512, and say a third more."""
    return {
        "seanet": {
            "channels": 1, "dimension": dim, "causal": True, "n_filters": filters, "n_residual_layers": 1,
            "activation": "ELU", "compress": 2, "dilation_base": 2, "disable_norm_outer_blocks": 0, "kernel_size": 7,
            "residual_kernel_size": 3, "last_kernel_size": 3, "norm": "none", "pad_mode": "constant",
            "ratios": [8, 6, 5, 4], "true_skip": True,
        },
        "quantizer": {
            "dimension": code, "n_q": codebooks, "bins": bins, "input_dimension": dim, "output_dimension": dim,
        },
        "transformer": {
            "d_model": dim, "num_heads": 3, "num_layers": 2, "causal": True, "layer_scale": 0.01, "context": 50,
            "conv_layout": True, "max_period": 10000, "gating": "none", "norm": "layer_norm",
            "positional_embedding": "rope", "dim_feedforward": 256, "input_dimension": dim, "output_dimensions": [dim],
        },
    }  # fmt: skip


GAIN, QUIET = 1.3, 0.1


def _wake(part: nn.Module) -> None:
    """Weights that keep the size of a signal, and no biases. With torch's own start a sound changes the latents by a
    fiftieth of that, and the codebooks begin with copies of one constant."""
    convolutions = [m for m in part.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    for conv in convolutions:
        width = conv.kernel_size[0] / (conv.stride[0] if isinstance(conv, nn.ConvTranspose1d) else 1)
        nn.init.normal_(conv.weight, std=math.sqrt(GAIN / (conv.in_channels * width)))
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def build(config: dict[str, Any], device: str = "cpu") -> MimiModel:
    """A Mimi with fresh weights, which starts as quiet as speech is."""
    encoder, decoder = SEANetEncoder(**config["seanet"]), SEANetDecoder(**config["seanet"])
    _wake(encoder)
    _wake(decoder)
    last = [m for m in decoder.modules() if isinstance(m, nn.Conv1d)][-1]
    nn.init.normal_(last.weight, std=QUIET * math.sqrt(1 / (last.in_channels * last.kernel_size[0])))
    model = MimiModel(
        encoder,
        decoder,
        SplitResidualVectorQuantizer(**config["quantizer"]),
        channels=1,
        sample_rate=RATE,
        frame_rate=RATE / FRAME,
        encoder_frame_rate=RATE / encoder.hop_length,
        causal=True,
        resample_method="conv",
        encoder_transformer=transformer.ProjectedTransformer(**config["transformer"]),
        decoder_transformer=transformer.ProjectedTransformer(**config["transformer"]),
    )
    model.set_num_codebooks(config["quantizer"]["n_q"])
    return model.to(device)


def load(path: Path, device: str = "cpu") -> tuple[MimiModel, dict[str, Any]]:
    """What train_codec.py wrote, ready to be used, and its configuration."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    codec = build(stored["config"], device)
    codec.load_state_dict(stored["codec"])
    return codec.eval(), stored["config"]
