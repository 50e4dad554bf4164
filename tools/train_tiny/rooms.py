"""What rooms and microphones do to sounds [B, samples], made on the device."""

from __future__ import annotations

import math

import torch
from pool import RATE, uniform
from torch import Tensor
from torch.nn import functional

BANDS = 9  # points of a random tone control, evenly on a logarithmic scale from 60 Hz to 12 kHz


def some(rows: int, share: float, device: str | torch.device) -> Tensor:
    """True in that share of the rows [rows, 1]."""
    return torch.rand(rows, 1, device=device) < share


def room(rows: int, samples: int, slowest: float, loudest: float, share: float, device: str | torch.device) -> Tensor:
    """Impulse responses [rows, samples] that fall to 1 / e in at most `slowest` samples: a room for `share` of them."""
    decay = uniform((rows, 1), 200, slowest, device)
    sound = torch.randn(rows, samples, device=device) * torch.exp(-torch.arange(samples, device=device)[None] / decay)
    sound = sound * uniform((rows, 1), 0.0, loudest, device) * some(rows, share, device)
    sound[:, :24].zero_()  # the first millisecond is the direct sound
    sound[:, 0].fill_(1)
    return sound


def fft_size(samples: int) -> int:
    """Room for a convolution that ends up this long."""
    return 1 << samples.bit_length()


def hiss(sound: Tensor, loudest: float) -> Tensor:
    """Noise of some colour beside `sound`, up to so many dB, in most rows."""
    rows, samples = sound.shape
    device = sound.device
    noise = torch.randn(rows, samples, device=device)
    noise[:, 1:] = noise[:, 1:] + uniform((rows, 1), 0.0, 0.95, device) * noise[:, :-1]
    return noise * 10 ** (uniform((rows, 1), -75, loudest, device) / 20) * some(rows, 0.7, device)


def microphone(sound: Tensor) -> Tensor:
    """Light room, tilt and noise; the level stays."""
    rows, samples = sound.shape
    n = RATE // 5
    response = room(rows, n, 1400, 0.04, 0.4, sound.device)
    response[:, 1] = uniform((rows,), -0.35, 0.35, sound.device)  # tilt
    size = fft_size(samples + n)
    out = torch.fft.irfft(torch.fft.rfft(sound, size) * torch.fft.rfft(response, size), size)[:, :samples]
    return (out + hiss(sound, -45)).clamp(-1, 1)


def tone(frequencies: Tensor, rows: int) -> Tensor:
    """Random gains [rows, frequencies]: a tone control for most rows, a telephone's or a dull microphone's band for
    some."""
    device = frequencies.device
    decibels = torch.randn(rows, 1, BANDS, device=device) * 4.0 * some(rows, 0.7, device)[:, None]
    scale = ((frequencies.clamp(min=60) / 60).log() / math.log(200) * 2 - 1).clamp(-1, 1)
    grid = torch.stack([scale, torch.zeros_like(scale)], -1)[None, None].expand(rows, -1, -1, -1)
    gain = 10 ** (functional.grid_sample(decibels[:, :, None], grid, align_corners=True)[:, 0, 0] / 20)
    limit = lambda at, order: 1 / (1 + (frequencies[None] / at) ** order)  # noqa: E731
    telephone, dull = some(rows, 0.1, device), some(rows, 0.25, device)
    band = limit(uniform((rows, 1), 3000, 3800, device), 12) * (1 - limit(uniform((rows, 1), 200, 350, device), 6))
    gain = torch.where(dull, gain * limit(uniform((rows, 1), 3500, 9000, device), 12), gain)
    return torch.where(telephone, gain * band, gain)


def channel(sound: Tensor) -> Tensor:
    """What some microphone gives: tone, room, hiss, level, now and then overdriven."""
    rows, samples = sound.shape
    device, n = sound.device, RATE // 3
    size = fft_size(samples + n)
    frequencies = torch.fft.rfftfreq(size, 1 / RATE, device=device)
    response = torch.fft.rfft(room(rows, n, 2400, 0.05, 0.5, device), size) * tone(frequencies, rows)
    out = torch.fft.irfft(torch.fft.rfft(sound, size) * response, size)[:, :samples] + hiss(sound, -38)
    drive = uniform((rows, 1), 2, 12, device)
    out = torch.where(some(rows, 0.08, device), torch.tanh(out * drive) / drive, out)
    return (out * 10 ** (uniform((rows, 1), -12, 5, device) / 20)).clamp(-1, 1)
