"""A recogniser of the closed set's words, for the evaluation: `python train_recogniser.py CORPUS OUT --seconds N`.

It is trained on clean originals: the users' questions, and the answers of every other preset. It is judged on originals
of the other nine presets, and on strangers with phrasings that nobody was trained on; then it may judge coded and
generated speech.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shards
import torch
from bands import RATE, mel_bank
from measures import Sound, words
from pool import Pool, uniform
from rooms import microphone
from torch import Tensor, nn
from torch.nn import functional
from voices import PRESETS

KNOWN_VOICES = tuple(PRESETS)[::2]
WINDOW, HOP, BANDS = 1024, 256, 80
EDGE = RATE // 5  # samples of silence around a clip, at most


class Listener(nn.Module):
    """Sounds [B, samples] -> logarithms of probabilities [steps, B, 1 + words], 23 steps a second; 0 is no word."""

    def __init__(self, vocabulary: Sequence[str], width: int = 192) -> None:
        super().__init__()
        self.vocabulary = list(vocabulary)
        self.register_buffer("hann", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("bank", torch.from_numpy(mel_bank(WINDOW, BANDS)), persistent=False)
        self.first = nn.Conv1d(BANDS, width, 5, stride=2, padding=2)
        self.second = nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.recurrent = nn.GRU(width, width, 2, batch_first=True, bidirectional=True, dropout=0.2)
        self.out = nn.Linear(2 * width, 1 + len(vocabulary))

    def forward(self, sound: Tensor) -> Tensor:
        bins = torch.stft(sound, WINDOW, HOP, window=self.hann, return_complex=True).abs()
        bands = (self.bank @ bins + 1e-3).log()
        bands = (bands - bands.mean((1, 2), keepdim=True)) / (bands.std((1, 2), keepdim=True) + 1e-3)
        if self.training:
            bands = hidden_parts(bands)
        x = functional.gelu(self.second(functional.gelu(self.first(bands))))
        return (
            self.out(functional.dropout(self.recurrent(x.transpose(1, 2))[0], 0.2, self.training))
            .log_softmax(-1)
            .transpose(0, 1)
        )

    @torch.no_grad()
    def hear(self, sound: Sound) -> list[str]:
        """The words of a sound at 24 kHz."""
        quiet = np.zeros(EDGE // 2, np.float32)
        best = self(torch.from_numpy(np.concatenate([quiet, sound, quiet]))[None])[:, 0].argmax(-1).tolist()
        kept = [now for before, now in zip([0, *best], best, strict=False) if now not in (0, before)]
        return [self.vocabulary[index - 1] for index in kept]


def hidden_parts(bands: Tensor) -> Tensor:
    """A stretch of the bands and one of the time set to the mean."""
    batch, height, width = bands.shape
    device = bands.device
    for size, axis, most in ((height, 1, 16), (width, 2, 12)):
        begin = torch.randint(size, (batch, 1), device=device)
        length = torch.randint(most, (batch, 1), device=device)
        at = torch.arange(size, device=device)[None]
        gone = (at >= begin) & (at < begin + length)
        bands = bands.masked_fill(gone[:, :, None] if axis == 1 else gone[:, None], 0.0)
    return bands


def load(path: Path) -> Listener:
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = Listener(state["vocabulary"])
    model.load_state_dict({name: tensor.float() for name, tensor in state["model"].items()}, strict=False)
    return model.eval()


def batch(pool: Pool, chosen: Tensor) -> Tensor:
    """Clips at another speed, somewhere in silence, half of them through a microphone."""
    device, n = pool.device, len(chosen)
    speed = uniform((n,), 0.88, 1.15, device)
    longest = int((pool.lengths[chosen] / speed).max()) + 2 * EDGE
    sound = torch.zeros(n, longest, device=device)
    at = (uniform((n,), 0, 2 * EDGE, device)).long()
    pool.play(sound, torch.arange(n, device=device), chosen, at, speed)
    return torch.where(torch.rand(n, 1, device=device) < 0.5, sound, microphone(sound))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--report", type=int, default=200)
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(5)
    options.out.mkdir(parents=True, exist_ok=True)
    clips = [clip for clip in shards.read(options.corpus, "agents") if clip.speaker in KNOWN_VOICES]
    clips += shards.read(options.corpus, "users")
    vocabulary = sorted({word for clip in clips for word in words(clip.text)})
    numbers = {word: 1 + i for i, word in enumerate(vocabulary)}
    targets = [torch.tensor([numbers[word] for word in words(clip.text)]) for clip in clips]
    pool = Pool([clip.samples for clip in clips], device)
    order = pool.lengths.argsort()  # batches of clips of one length
    model = Listener(vocabulary).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-2)
    print(f"{len(clips)} clips, {len(vocabulary)} words", flush=True)
    began, step = time.monotonic(), 0
    while (passed := (time.monotonic() - began) / options.seconds) < 1:
        optimizer.param_groups[0]["lr"] = 1.5e-3 * min(1, (step + 1) / 200) * (1 - passed) + 1e-6
        first = int(torch.randint(max(1, len(clips) - 8 * options.batch), ()))
        near = order[first : first + 8 * options.batch]
        chosen = near[torch.randint(len(near), (options.batch,), device=device)]
        spoken = [targets[i] for i in chosen.tolist()]
        found = model(batch(pool, chosen))
        lengths = torch.full((options.batch,), len(found), dtype=torch.long)
        sizes = torch.tensor([len(target) for target in spoken])
        loss = functional.ctc_loss(found, torch.cat(spoken).to(device), lengths, sizes, zero_infinity=True)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % options.report == 0:
            print(f"step {step} {time.monotonic() - began:.0f} s loss {float(loss.detach()):.4f}", flush=True)
    half = {name: tensor.half().cpu() for name, tensor in model.state_dict().items()}
    torch.save({"vocabulary": vocabulary, "model": half}, options.out / "recogniser.pt")


if __name__ == "__main__":
    main()
