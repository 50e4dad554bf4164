"""Critics on complex spectra at three resolutions, with the hinge and feature-matching losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Critic(nn.Module):
    """Scores patches of a spectrogram; keeps its inner layers for feature matching."""

    def __init__(self, window: int, channels: int = 24) -> None:
        super().__init__()
        self.size = window
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        layers = [nn.Conv2d(2, channels, (3, 9), padding=(1, 4))]
        for dilation in (1, 2, 4):
            pad = (dilation, 4)
            layers.append(nn.Conv2d(channels, channels, (3, 9), stride=(1, 2), padding=pad, dilation=(dilation, 1)))
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, 1, 3, padding=1)]
        self.layers = nn.ModuleList(nn.utils.parametrizations.weight_norm(layer) for layer in layers)

    def forward(self, sound: Tensor) -> tuple[Tensor, list[Tensor]]:
        bins = torch.stft(sound, self.size, self.size // 4, window=self.window, normalized=True, return_complex=True)
        x, inner = torch.stack([bins.real, bins.imag], 1).transpose(2, 3), []
        for layer in self.layers[:-1]:
            x = functional.leaky_relu(layer(x), 0.2)
            inner.append(x)
        return self.layers[-1](x), inner


class Critics(nn.Module):
    def __init__(self, windows: tuple[int, ...] = (2048, 1024, 512)) -> None:
        super().__init__()
        self.all = nn.ModuleList(Critic(window) for window in windows)

    def judge(self, original: Tensor, coded: Tensor) -> Tensor:
        """The critics' own loss."""
        loss = original.new_zeros(())
        for critic in self.all:
            loss = loss + functional.relu(1 - critic(original)[0]).mean()
            loss = loss + functional.relu(1 + critic(coded.detach())[0]).mean()
        return loss / len(self.all)

    def fool(self, original: Tensor, coded: Tensor) -> tuple[Tensor, Tensor]:
        """The codec's losses: adversarial, and relative distance of the inner layers."""
        score, match = original.new_zeros(()), original.new_zeros(())
        for critic in self.all:
            with torch.no_grad():
                _, real = critic(original)
            verdict, made = critic(coded)
            score = score - verdict.mean()
            for a, b in zip(real, made, strict=True):
                match = match + (a - b).abs().float().mean() / a.abs().float().mean().clamp(min=1e-3) / len(real)
        return score / len(self.all), match / len(self.all)
