"""Other speakers and other microphones of the same sound, made on the device: tempo, formants, tone, rooms."""

from __future__ import annotations

import math

import torch
from pool import RATE, uniform
from torch import Tensor
from torch.nn import functional

SIZE, HOP = 1024, 256
LIFTER = 44  # samples of quefrency that make an envelope: below the period of a voice of 500 Hz
FLOOR = 1e-3  # magnitudes below are silence, whose envelope stays flat
BANDS = 9  # points of a random tone control, evenly on a logarithmic scale from 60 Hz to 12 kHz


def moved(sound: Tensor, samples: int, tempo: Tensor, formants: Tensor) -> Tensor:
    """[B, S] played `tempo` [B] times as fast at the same pitch, its formants at `formants` [B] times their frequency:
    [B, samples]. A phase vocoder; at 1 and 1 the sound comes back as it was."""
    window = torch.hann_window(SIZE, device=sound.device)
    frames = torch.stft(sound, SIZE, HOP, window=window, return_complex=True).transpose(1, 2)
    steps, bins = samples // HOP + 1, frames.shape[2]
    at = torch.arange(steps, device=sound.device)[None] * tempo[:, None]
    low = at.long().clamp(max=frames.shape[1] - 2)
    row = torch.arange(len(sound), device=sound.device)[:, None]
    here, there = frames[row, low], frames[row, low + 1]
    part = (at - low).clamp(0, 1)[:, :, None]
    size = here.abs() * (1 - part) + there.abs() * part
    # neighbours on the analysis side are one hop apart, and so are those on the other: their turn needs no unwrapping
    turn = torch.angle(there * here.conj())
    phase = torch.cat([torch.angle(here[:, :1]), turn[:, :-1]], 1).cumsum(1)
    cepstrum = torch.fft.irfft(size.clamp(min=FLOOR).log(), SIZE)
    cepstrum[..., LIFTER : SIZE - LIFTER + 1] = 0
    envelope = torch.fft.rfft(cepstrum).real
    source = (torch.arange(bins, device=sound.device)[None] / formants[:, None]).clamp(max=bins - 1.001)
    below = source.long()[:, None].expand(-1, steps, -1)
    share = (source - source.long())[:, None]
    wanted = envelope.gather(2, below) * (1 - share) + envelope.gather(2, below + 1) * share
    spectrum = torch.polar(size * (wanted - envelope).clamp(-4.0, 3.0).exp(), phase)
    return torch.istft(spectrum.transpose(1, 2), SIZE, HOP, window=window, length=samples)


def _some(rows: int, share: float, device: str | torch.device) -> Tensor:
    return torch.rand(rows, 1, device=device) < share


def tone(frequencies: Tensor, rows: int) -> Tensor:
    """Random gains [rows, frequencies]: a tone control for most rows, a telephone's or a dull microphone's band for
    some."""
    device = frequencies.device
    decibels = torch.randn(rows, 1, BANDS, device=device) * 4.0 * _some(rows, 0.7, device)[:, None]
    scale = ((frequencies.clamp(min=60) / 60).log() / math.log(200) * 2 - 1).clamp(-1, 1)
    grid = torch.stack([scale, torch.zeros_like(scale)], -1)[None, None].expand(rows, -1, -1, -1)
    gain = 10 ** (functional.grid_sample(decibels[:, :, None], grid, align_corners=True)[:, 0, 0] / 20)
    limit = lambda at, order: 1 / (1 + (frequencies[None] / at) ** order)  # noqa: E731
    telephone, dull = _some(rows, 0.1, device), _some(rows, 0.25, device)
    band = limit(uniform((rows, 1), 3000, 3800, device), 12) * (1 - limit(uniform((rows, 1), 200, 350, device), 6))
    gain = torch.where(dull, gain * limit(uniform((rows, 1), 3500, 9000, device), 12), gain)
    return torch.where(telephone, gain * band, gain)


def room(rows: int, device: str | torch.device) -> Tensor:
    """Impulse responses [rows, a third of a second]: none for half of the rows."""
    n = RATE // 3
    decay = uniform((rows, 1), 200, 2400, device)
    sound = torch.randn(rows, n, device=device) * torch.exp(-torch.arange(n, device=device)[None] / decay)
    sound = sound * uniform((rows, 1), 0.0, 0.05, device) * _some(rows, 0.5, device)
    sound[:, :24].zero_()  # the first millisecond is the direct sound
    sound[:, 0].fill_(1)
    return sound


def channel(sound: Tensor) -> Tensor:
    """What some microphone gives of [B, S]: tone, room, hiss, level, now and then overdriven."""
    rows, samples = sound.shape
    device = sound.device
    size = 1 << (samples + RATE // 3).bit_length()
    frequencies = torch.fft.rfftfreq(size, 1 / RATE, device=device)
    response = torch.fft.rfft(room(rows, device), size) * tone(frequencies, rows)
    out = torch.fft.irfft(torch.fft.rfft(sound, size) * response, size)[:, :samples]
    noise = torch.randn(rows, samples, device=device)
    noise[:, 1:] = noise[:, 1:] + uniform((rows, 1), 0.0, 0.95, device) * noise[:, :-1]
    out = out + noise * 10 ** (uniform((rows, 1), -75, -38, device) / 20) * _some(rows, 0.7, device)
    drive = uniform((rows, 1), 2, 12, device)
    out = torch.where(_some(rows, 0.08, device), torch.tanh(out * drive) / drive, out)
    return (out * 10 ** (uniform((rows, 1), -12, 5, device) / 20)).clamp(-1, 1)
