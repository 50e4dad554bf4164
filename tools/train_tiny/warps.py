"""Other speakers of the same sound, made on the device: tempo and formants."""

from __future__ import annotations

import torch
from torch import Tensor

SIZE, HOP = 1024, 256
LIFTER = 44  # samples of quefrency that make an envelope: below the period of a voice of 500 Hz
FLOOR = 1e-3  # magnitudes below are silence, whose envelope stays flat


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
