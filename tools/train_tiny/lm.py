"""The language model for training: temporal transformer and depformer with weights per step, on whole sequences.

Rows of a token grid: text, then the agent's codebooks, then the user's. Every computation is that of the package's
frame (`csrc/model`); `tensors` names the weights as NVIDIA's file does.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

PAD, WORD_NEXT = 3, 0  # text tokens: nothing to say; the next frame begins a word
TEXT_CARD = 384
MIDDLE = 3  # layers that hear; the others answer


@dataclass(frozen=True)
class Sizes:
    """What a checkpoint must know to build its model."""

    codebooks: int = 12  # of the agent, and of the user
    card: int = 256
    dim: int = 256
    heads: int = 4
    layers: int = 5
    hidden: int = 512
    depth_dim: int = 128
    depth_heads: int = 2
    depth_layers: int = 2
    depth_hidden: int = 128

    @property
    def rows(self) -> int:
        return 2 * self.codebooks + 1

    @property
    def delays(self) -> list[int]:
        one = [0] + [1] * (self.codebooks - 1)
        return [0, *one, *one]

    def config(self, context: int) -> dict[str, Any]:
        """config.json's keys, but for the prompt and Mimi."""
        return {
            "delays": self.delays, "n_q": 2 * self.codebooks, "dep_q": self.codebooks, "card": self.card,
            "text_card": TEXT_CARD, "dim": self.dim, "num_heads": self.heads, "num_layers": self.layers,
            "hidden_scale": self.hidden * 1.5 / self.dim, "causal": True, "layer_scale": None, "context": context,
            "max_period": 10000, "gating": "silu", "norm": "rms_norm_f32", "positional_embedding": "rope",
            "existing_text_padding_id": PAD, "depformer_dim": self.depth_dim,
            "depformer_dim_feedforward": self.depth_hidden * 3 // 2, "depformer_num_heads": self.depth_heads,
            "depformer_num_layers": self.depth_layers, "depformer_layer_scale": None, "depformer_multi_linear": True,
            "depformer_context": self.codebooks, "depformer_max_period": 10000, "depformer_gating": "silu",
            "depformer_pos_emb": "none", "depformer_weights_per_step": True,
        }  # fmt: skip

    def saved(self) -> dict[str, int]:
        return asdict(self)


def rms(x: Tensor, alpha: Tensor) -> Tensor:
    x = x.float()
    return x * (alpha * torch.rsqrt(1e-8 + x.square().mean(-1, keepdim=True)))


def rope(x: Tensor, positions: Tensor) -> Tensor:
    """Neighbouring pairs of x [..., positions, channels] rotated, as `csrc/ops` does."""
    half = x.shape[-1] // 2
    speeds = torch.exp(torch.arange(half, device=x.device, dtype=torch.float32) * (-math.log(10000.0) / half))
    angle = positions[:, None].float() * speeds
    cos, sin = angle.cos(), angle.sin()
    real, imaginary = x.float().unflatten(-1, (half, 2)).unbind(-1)
    return torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], -1).flatten(-2)


def _normal(*shape: int, std: float) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * std)


def _ones(n: int, dim: int) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(torch.ones(dim)) for _ in range(n))


def _stack(n: int, *shape: int, std: float) -> nn.ParameterList:
    return nn.ParameterList(_normal(*shape, std=std) for _ in range(n))


class TinyLM(nn.Module):
    """`drop` is the dropout of training; every matrix is [out, in], the depformer's [step, out, in]."""

    def __init__(self, sizes: Sizes, drop: float = 0.0) -> None:
        super().__init__()
        self.sizes, self.drop = sizes, drop
        s, d, e, q = sizes, sizes.dim, sizes.depth_dim, sizes.codebooks
        deep, shallow = (2 * s.layers) ** -0.5, (2 * s.depth_layers) ** -0.5  # residuals start small
        self.emb = _normal(2 * q, s.card + 1, d, std=0.1)
        self.text_emb = _normal(TEXT_CARD + 1, d, std=0.3)
        self.text_linear = _normal(TEXT_CARD, d, std=d**-0.5)
        self.out_norm = nn.Parameter(torch.ones(d))
        self.norm1, self.norm2 = _ones(s.layers, d), _ones(s.layers, d)
        self.qkv = _stack(s.layers, 3 * d, d, std=d**-0.5)
        self.out = _stack(s.layers, d, d, std=d**-0.5 * deep)
        self.gate_in = _stack(s.layers, 2 * s.hidden, d, std=d**-0.5)
        self.gate_out = _stack(s.layers, d, s.hidden, std=s.hidden**-0.5 * deep)
        self.depth_in = _normal(q, e, d, std=d**-0.5)
        self.depth_text = _normal(TEXT_CARD + 1, e, std=0.3)
        self.depth_emb = _normal(q - 1, s.card + 1, e, std=0.3)
        self.depth_norm1, self.depth_norm2 = _ones(s.depth_layers, e), _ones(s.depth_layers, e)
        self.depth_qkv = _stack(s.depth_layers, q, 3 * e, e, std=e**-0.5)
        self.depth_out = _stack(s.depth_layers, q, e, e, std=e**-0.5 * shallow)
        self.depth_gate_in = _stack(s.depth_layers, q, 2 * s.depth_hidden, e, std=e**-0.5)
        self.depth_gate_out = _stack(s.depth_layers, q, e, s.depth_hidden, std=s.depth_hidden**-0.5 * shallow)
        self.heads = _normal(q, s.card, e, std=e**-0.5)

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.drop, self.training)

    def temporal(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens [B, rows, T] -> hidden states [B, T, dim]. `mask` [T, T]: who sees whom; None: all before."""
        return self.states(tokens, mask)[0]

    def states(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The hidden states, and those after layer MIDDLE."""
        s, middle = self.sizes, None
        batch, _, steps = tokens.shape
        offsets = torch.arange(2 * s.codebooks, device=tokens.device)[None, :, None] * (s.card + 1)
        x = functional.embedding(tokens[:, 0], self.text_emb)
        x = self._drop(x + functional.embedding(tokens[:, 1:] + offsets, self.emb.flatten(0, 1)).sum(1))
        positions = torch.arange(steps, device=tokens.device)
        for i in range(s.layers):
            projected = functional.linear(rms(x, self.norm1[i]), self.qkv[i])
            q, k, v = projected.view(batch, steps, 3, s.heads, -1).permute(2, 0, 3, 1, 4)
            q, k = rope(q, positions).to(v.dtype), rope(k, positions).to(v.dtype)
            seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
            x = x + self._drop(functional.linear(seen.transpose(1, 2).reshape(batch, steps, s.dim), self.out[i]))
            gate, up = functional.linear(rms(x, self.norm2[i]), self.gate_in[i]).chunk(2, -1)
            x = x + self._drop(functional.linear(functional.silu(gate) * up, self.gate_out[i]))
            middle = x if i + 1 == MIDDLE else middle
        return rms(x, self.out_norm), x if middle is None else middle

    def text(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.text_linear)

    def depth(self, hidden: Tensor, text: Tensor, codes: Tensor) -> Tensor:
        """Hidden [N, dim], the frame's text [N] and codes [N, codebooks] -> logits [codebooks, N, card], each of which
        has seen the text and the codes before it."""
        s, n, dtype = self.sizes, hidden.shape[0], hidden.dtype
        if torch.is_autocast_enabled(hidden.device.type):
            dtype = torch.get_autocast_dtype(hidden.device.type)
        by_step = lambda x, weight: torch.bmm(x.to(dtype), weight.transpose(1, 2).to(dtype))  # noqa: E731
        offsets = torch.arange(s.codebooks - 1, device=hidden.device)[:, None] * (s.card + 1)
        before = functional.embedding(codes[:, :-1].T + offsets, self.depth_emb.flatten(0, 1))
        before = torch.cat([functional.embedding(text, self.depth_text)[None], before])
        x = by_step(hidden.expand(s.codebooks, -1, -1), self.depth_in).float() + before
        later = torch.ones(s.codebooks, s.codebooks, device=hidden.device, dtype=torch.bool).triu(1)
        for i in range(s.depth_layers):
            projected = by_step(rms(x, self.depth_norm1[i]), self.depth_qkv[i])
            q, k, v = projected.view(s.codebooks, n, 3, s.depth_heads, -1).permute(2, 1, 3, 0, 4)
            # a dozen steps only: plain attention is the cheapest
            scores = torch.matmul(q, k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
            shares = scores.masked_fill(later, -1e9).softmax(-1).to(v.dtype)
            seen = torch.matmul(shares, v).permute(2, 0, 1, 3).reshape(s.codebooks, n, s.depth_dim)
            x = x + by_step(seen, self.depth_out[i])
            gate, up = by_step(rms(x, self.depth_norm2[i]), self.depth_gate_in[i]).chunk(2, -1)
            x = x + by_step(functional.silu(gate) * up, self.depth_gate_out[i])
        return by_step(x, self.heads)

    def tensors(self) -> dict[str, Tensor]:
        """float32 tensors by the names of NVIDIA's model.safetensors."""
        s = self.sizes
        found = {
            "text_emb.weight": self.text_emb,
            "text_linear.weight": self.text_linear,
            "out_norm.alpha": self.out_norm.view(1, 1, -1),
            "depformer_text_emb.weight": self.depth_text,
        }
        for k in range(2 * s.codebooks):
            found[f"emb.{k}.weight"] = self.emb[k]
        for i in range(s.layers):
            name = f"transformer.layers.{i}."
            found[name + "norm1.alpha"] = self.norm1[i].view(1, 1, -1)
            found[name + "norm2.alpha"] = self.norm2[i].view(1, 1, -1)
            found[name + "self_attn.in_proj_weight"] = self.qkv[i]
            found[name + "self_attn.out_proj.weight"] = self.out[i]
            found[name + "gating.linear_in.weight"] = self.gate_in[i]
            found[name + "gating.linear_out.weight"] = self.gate_out[i]
        for k in range(s.codebooks):
            found[f"depformer_in.{k}.weight"] = self.depth_in[k]
            found[f"linears.{k}.weight"] = self.heads[k]
            if k + 1 < s.codebooks:
                found[f"depformer_emb.{k}.weight"] = self.depth_emb[k]
        for i in range(s.depth_layers):
            name = f"depformer.layers.{i}."
            found[name + "norm1.alpha"] = self.depth_norm1[i].view(1, 1, -1)
            found[name + "norm2.alpha"] = self.depth_norm2[i].view(1, 1, -1)
            found[name + "self_attn.in_proj_weight"] = self.depth_qkv[i].flatten(0, 1)
            found[name + "self_attn.out_proj.weight"] = self.depth_out[i].flatten(0, 1)
            for k in range(s.codebooks):
                found[f"{name}gating.{k}.linear_in.weight"] = self.depth_gate_in[i][k]
                found[f"{name}gating.{k}.linear_out.weight"] = self.depth_gate_out[i][k]
        return {name: tensor.detach().float().cpu().contiguous().clone() for name, tensor in found.items()}
