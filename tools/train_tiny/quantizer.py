"""Training view of Mimi's split residual quantizer: codebooks by moving averages, dead codes revived."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

DECAY = 0.99
DEAD = 0.03  # of the mean usage: below it a code is moved to a latent of the batch


def nearest(latents: Tensor, table: Tensor) -> Tensor:
    return (table.pow(2).sum(-1)[None] - 2 * latents @ table.T).argmin(-1)


class Quantizer(nn.Module):
    """Wraps `mimi.quantizer`. Passes latents through unquantized until `start` has made the codebooks."""

    def __init__(self, split: nn.Module, codebooks: int, bins: int, dim: int) -> None:
        super().__init__()
        self.split = [split]  # in a list: its parameters belong to the codec
        self.groups = [(split.rvq_first, 1), (split.rvq_rest, codebooks - 1)]
        self.bins, self.codebooks = bins, codebooks
        self.register_buffer("usage", torch.ones(codebooks, bins))
        self.register_buffer("total", torch.zeros(codebooks, bins, dim))
        self.active = False  # no tensor: asking a device would stop it every step

    def table(self) -> Tensor:
        return self.total / self.usage.clamp(min=1e-5)[..., None]

    def _flat(self, rvq: nn.Module, latents: Tensor) -> Tensor:
        projected = rvq.input_proj(latents).transpose(1, 2)
        return projected.reshape(-1, projected.shape[-1]).float()

    @torch.no_grad()
    def start(self, latents: Tensor, rounds: int = 15) -> None:
        """k-means level by level on latents [B, dim, T]."""
        level = 0
        for rvq, n in self.groups:
            left = self._flat(rvq, latents)
            for _ in range(n):
                centres = left[torch.randint(len(left), (self.bins,), device=left.device)].clone()
                for _ in range(rounds):
                    count, total = self._sums(nearest(left, centres), left)
                    spare = left[torch.randint(len(left), (self.bins,), device=left.device)]
                    centres = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], spare)
                self.usage[level] = len(left) / self.bins / 16
                self.total[level] = centres * self.usage[level][:, None]
                left = left - centres[nearest(left, centres)]
                level += 1
        self.active = True

    def _sums(self, codes: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        count = torch.zeros(self.bins, device=latents.device).index_add_(0, codes, torch.ones_like(latents[:, 0]))
        total = torch.zeros(self.bins, latents.shape[1], device=latents.device).index_add_(0, codes, latents)
        return count, total

    def _update(self, level: int, codes: Tensor, latents: Tensor) -> None:
        count, total = self._sums(codes, latents)
        self.usage[level].mul_(DECAY).add_(count, alpha=1 - DECAY)
        self.total[level].mul_(DECAY).add_(total, alpha=1 - DECAY)
        mean = self.usage[level].mean()
        dead = self.usage[level] < DEAD * mean
        fresh = latents[torch.randint(len(latents), (self.bins,), device=latents.device)]
        self.total[level] = torch.where(dead[:, None], fresh * mean * 0.5, self.total[level])
        self.usage[level] = torch.where(dead, mean * 0.5, self.usage[level])

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Latents [B, dim, T] -> quantized latents, commitment loss, codes [B, codebooks, T] (None before `start`)."""
        if not self.active:
            through = sum(rvq.output_proj(rvq.input_proj(latents)) for rvq, _ in self.groups)
            return through, latents.new_zeros(()), None
        batch, _, steps = latents.shape
        out, loss, codes, level, table = 0, latents.new_zeros(()), [], 0, self.table()
        for rvq, n in self.groups:
            flat = self._flat(rvq, latents)
            left, found = flat, torch.zeros_like(flat)
            for _ in range(n):
                chosen = nearest(left.detach(), table[level])
                centre = table[level][chosen]
                loss = loss + functional.mse_loss(left, centre) / self.codebooks
                if self.training:
                    with torch.no_grad():
                        self._update(level, chosen, left.detach())
                codes.append(chosen.view(batch, steps))
                found, left = found + centre, left - centre
                level += 1
            straight = flat + (found - flat).detach()
            out = out + rvq.output_proj(straight.view(batch, steps, -1).transpose(1, 2))
        return out, loss, torch.stack(codes, 1)

    @torch.no_grad()
    def export(self) -> None:
        """Writes the codebooks into the codec's own quantizer."""
        level = 0
        for rvq, _ in self.groups:
            for layer in rvq.vq.layers:
                book = layer._codebook
                book.embedding_sum.copy_(self.total[level])
                book.cluster_usage.copy_(self.usage[level])
                book._initialized.fill_(1)
                book.register_buffer("_embedding", None, persistent=False)
                level += 1
