"""Clips on the training device, and streams mixed from them there: two lines after each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RATE = 24000


def uniform(shape: tuple[int, ...], low: float, high: float, device: str) -> Tensor:
    return torch.rand(shape, device=device) * (high - low) + low


class Pool:
    """Many int16 clips end to end in one tensor."""

    def __init__(self, clips: Sequence[NDArray[np.int16]], device: str) -> None:
        self.lengths = torch.tensor([len(clip) for clip in clips], device=device)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.samples = torch.from_numpy(np.concatenate(clips)).to(device)
        self.device = device

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, out: Tensor, clip: Tensor, at: Tensor) -> Tensor:
        """out [B, S] plus clip[b] from sample at[b] on, which may lie outside."""
        t = torch.arange(out.shape[1], device=self.device)[None] - at[:, None]
        inside = (t >= 0) & (t < self.lengths[clip][:, None])
        index = (self.starts[clip][:, None] + t).clamp(0, len(self.samples) - 1)
        return out + torch.where(inside, self.samples[index].float() / 32768, 0.0)

    def play(self, out: Tensor, row: Tensor, clip: Tensor, at: Tensor, speed: Tensor) -> None:
        """Adds clip[i] to out[row[i]] from sample at[i] on, `speed[i]` times as fast."""
        for part in torch.arange(len(clip), device=self.device).split(128):
            mine, faster, begin = clip[part], speed[part, None], at[part, None]
            t = torch.arange(int((self.lengths[mine] / speed[part]).max()) + 1, device=self.device)[None]
            source = t * faster
            low = source.long()
            inside = (low + 1 < self.lengths[mine][:, None]) & (t + begin < out.shape[1])
            index = (self.starts[mine][:, None] + low).clamp(max=len(self.samples) - 2)
            share = source - low
            value = self.samples[index].float() * (1 - share) + self.samples[index + 1].float() * share
            target = (row[part, None] * out.shape[1] + t + begin).clamp(max=out.numel() - 1)
            out.view(-1).index_add_(0, target.flatten(), torch.where(inside, value / 32768, 0.0).flatten())

    def streams(self, batch: int, samples: int) -> Tensor:
        """Two random lines after each other in each row, the first anywhere about the start."""
        first, second = (torch.randint(len(self), (batch,), device=self.device) for _ in range(2))
        at = (uniform((batch,), -1.2, 0.8, self.device) * RATE).long()
        out = self.add(torch.zeros(batch, samples, device=self.device), first, at)
        pause = (uniform((batch,), 0.05, 0.8, self.device) * RATE).long()
        return self.add(out, second, at + self.lengths[first] + pause)
