"""How far a decoded sound is from the original: mel and linear spectra, pitch, and the envelopes that words live in."""

from __future__ import annotations

import torch
from bands import RATE, mel_bank, third_octaves
from torch import Tensor, nn


class Spectra(nn.Module):
    """All terms between two batches of sounds [B, samples]; each is 0 for equal sounds."""

    MEL = ((128, 10), (256, 20), (512, 40), (1024, 80), (2048, 120))
    LINEAR = (1024, 2048)  # resolve the harmonics of a low voice, which mel bands blur
    LINEAR_TOP = 5000  # Hz
    PITCH_WINDOW = 1536  # 64 ms: three periods of the lowest voice
    SHORTEST, LONGEST = 60, 420  # lags in samples: 400 to 57 Hz
    ENVELOPE_WINDOW, ENVELOPE_HOP, SEGMENT = 614, 307, 30  # STOI's: 26 ms, half of it, 384 ms

    def __init__(self) -> None:
        super().__init__()
        for window in {n for n, _ in self.MEL} | set(self.LINEAR) | {self.PITCH_WINDOW, self.ENVELOPE_WINDOW}:
            self.register_buffer(f"window{window}", torch.hann_window(window), persistent=False)
        for window, bands in self.MEL:
            self.register_buffer(f"mel{window}", torch.from_numpy(mel_bank(window, bands)), persistent=False)
        self.register_buffer("octaves", torch.from_numpy(third_octaves(self.ENVELOPE_WINDOW)), persistent=False)

    def magnitude(self, sound: Tensor, window: int, hop: int | None = None) -> Tensor:
        hann = getattr(self, f"window{window}")
        bins = torch.stft(sound, window, hop or window // 4, window=hann, return_complex=True)
        return (bins.real.square() + bins.imag.square() + 1e-9).sqrt()

    def mel(self, original: Tensor, coded: Tensor) -> Tensor:
        loss = original.new_zeros(())
        for window, _ in self.MEL:
            bank = getattr(self, f"mel{window}")
            a, b = (bank @ self.magnitude(sound, window) for sound in (original, coded))
            loss = loss + ((a + 1e-3).log() - (b + 1e-3).log()).abs().mean() + 0.1 * (a - b).abs().mean()
        return loss / len(self.MEL)

    def linear(self, original: Tensor, coded: Tensor) -> Tensor:
        loss = original.new_zeros(())
        for window in self.LINEAR:
            top = window * self.LINEAR_TOP // RATE
            a, b = (self.magnitude(sound, window)[:, :top] for sound in (original, coded))
            loss = loss + ((a + 3e-2).log() - (b + 3e-2).log()).abs().mean() + 0.05 * (a - b).abs().mean()
        return loss / len(self.LINEAR)

    def periodicity(self, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised autocorrelation [B, frames, lags] below 2 kHz, and the energy of the frames [B, frames]."""
        n = self.PITCH_WINDOW
        frames = sound.unfold(1, n, n // 3) * self.window1536
        power = torch.fft.rfft(frames, 2 * n).abs().square()
        power = power * (torch.arange(power.shape[-1], device=sound.device) < 2 * n * 2000 // RATE)
        lags = torch.fft.irfft(power, 2 * n)[..., : self.LONGEST]
        return lags[..., self.SHORTEST :] / (lags[..., :1] + 1e-3), lags[..., 0]

    def pitch(self, original: Tensor, coded: Tensor) -> Tensor:
        """Difference of the autocorrelations where the original has a voice."""
        (a, energy), (b, _) = self.periodicity(original), self.periodicity(coded)
        voiced = (a.amax(-1).clamp(min=0) ** 2) * (energy > 0.05)
        return ((a - b).abs().mean(-1) * voiced).sum() / (voiced.sum() + 1e-3)

    def envelopes(self, original: Tensor, coded: Tensor) -> Tensor:
        """1 - correlation of third-octave envelopes over 384 ms where the original moves: what STOI looks at."""
        shapes = []
        for sound in (original, coded):
            power = self.magnitude(sound, self.ENVELOPE_WINDOW, self.ENVELOPE_HOP).square()
            pieces = (self.octaves @ power + 1e-6).sqrt().unfold(2, self.SEGMENT, self.SEGMENT // 2)
            shapes.append(pieces - pieces.mean(-1, keepdim=True))
        a, b = shapes
        energy = a.square().sum(-1)
        weight = energy / (energy + 0.1)  # bands that hardly move say nothing
        cosine = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-4)
        return ((1 - cosine) * weight).sum() / (weight.sum() + 1e-3)
