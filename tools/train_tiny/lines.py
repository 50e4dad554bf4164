"""The corpus as the language model meets it: the agent's lines as codes and text tokens, the users' clips by intent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import alignment
import answers
import dialogue
import hearing
import mimi
import numpy as np
import other_lines
import phrases
import sentencepiece
import shards
import torch
from intents import INTENTS
from lm import PAD, WORD_NEXT
from numpy.typing import NDArray
from pool import Pool
from torch import Tensor, nn

VOICE = 25  # frames of a voice prompt
LEAD = 12  # frames of silence before a line is encoded: its codes are those after a pause
TAIL = 2  # frames of a line after its sound
# Users heard in the log's second half only: another kind of formant synthesis, a diphone voice, a mixture.
HELD_BACK = ("espeak54", "espeak55", "recorded14", "kokoro11")
COMPOSED, AFTER, BOTH = 0.40, 0.10, 0.05  # shares of questions with a part before, with one after, with both
PAUSE = (-0.03, 0.24)  # seconds between parts: always shorter than the silence that an answer waits for
PARTS, OTHERS = frozenset(phrases.PARTS), frozenset(other_lines.TRAIN)


@torch.no_grad()
def encode(codec: nn.Module, sounds: Tensor, rows: int = 64) -> Tensor:
    """Sounds [B, samples] -> codes [B, codebooks, frames], each from a fresh start."""
    return torch.cat([codec.encode(sounds[i : i + rows, None]) for i in range(0, len(sounds), rows)])


def constant_codes(codec: nn.Module, device: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The codes of endless silence and of a tone of 440 Hz, the user of the prompt."""
    time = torch.arange(mimi.FRAME * 60, device=device) / mimi.RATE
    tone = 0.5 * torch.sin(2 * math.pi * 440 * time)
    found = encode(codec, torch.stack([torch.zeros_like(time), tone]))[:, :, 40:].mode(-1).values
    silence, sine = found.cpu().numpy()
    return silence, sine


def word_tokens(
    processor: sentencepiece.SentencePieceProcessor, starts: Iterable[tuple[str, float]], frames: int
) -> NDArray[np.int64]:
    """A token a frame: pieces from where their word begins, WORD_NEXT before them where there is room."""
    out, free = np.full(frames, PAD, np.int64), 0
    for word, start in starts:
        at = max(free, int(start * dialogue.FRAME_RATE))
        if 0 < at <= frames and out[at - 1] == PAD:
            out[at - 1] = WORD_NEXT
        for piece in processor.encode(word):
            if at < frames:
                out[at] = piece
            at += 1
        free = at
    return out


@dataclass(frozen=True)
class Line:
    """One line in one voice: codes [codebooks, frames] and text [frames]."""

    codes: NDArray[np.int64]
    text: NDArray[np.int64]


@dataclass(frozen=True)
class Coded:
    """One line of one preset as codes [codebooks, frames], TAIL included."""

    speaker: str
    text: str
    seconds: float
    codes: NDArray[np.int64]


def coded(clips: Sequence[shards.Clip], codec: nn.Module, device: str) -> list[Coded]:
    """What the agent can say among the presets' clips; clips of about one length are encoded together."""
    known = {*answers.lines(), *answers.VOICE_LINES}
    clips = sorted((clip for clip in clips if clip.text in known), key=lambda clip: len(clip.samples))
    found: list[Coded] = []
    for at in range(0, len(clips), 64):
        part = clips[at : at + 64]
        sounds = torch.zeros(len(part), (LEAD + _frames(part[-1])) * mimi.FRAME)
        for row, clip in zip(sounds, part, strict=True):
            row[LEAD * mimi.FRAME :][: len(clip.samples)] = torch.from_numpy(clip.samples).float() / 32768
        for codes, clip in zip(encode(codec, sounds.to(device)).cpu().numpy()[:, :, LEAD:], part, strict=True):
            seconds = len(clip.samples) / mimi.RATE
            found.append(Coded(clip.speaker, clip.text, seconds, codes[:, : _frames(clip)]))
    return sorted(found, key=lambda one: (one.speaker, one.text))


def _frames(clip: shards.Clip) -> int:
    return -(-len(clip.samples) // mimi.FRAME) + TAIL


def keep(path: Path, found: Sequence[Coded]) -> None:
    """Codes on disk, a hundredth of their sound."""
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            names=np.array([(one.speaker, one.text) for one in found]),
            seconds=np.array([one.seconds for one in found]),
            frames=np.array([one.codes.shape[1] for one in found]),
            codes=np.concatenate([one.codes for one in found], 1).astype(np.int16),
        )


def kept(path: Path) -> list[Coded]:
    with np.load(path) as file:
        codes = np.split(file["codes"].astype(np.int64), np.cumsum(file["frames"])[:-1], 1)
        names, seconds = file["names"].tolist(), file["seconds"].tolist()
    return [Coded(*name, length, mine) for name, length, mine in zip(names, seconds, codes, strict=True)]


class AgentLines:
    """Every answer and every introduction in every voice."""

    def __init__(
        self,
        found: Sequence[Coded],
        codec: nn.Module,
        processor: sentencepiece.SentencePieceProcessor,
        device: str,
    ) -> None:
        self.silence, self.sine = constant_codes(codec, device)
        self.said: dict[tuple[str, str], Line] = {}
        self.introductions: dict[tuple[str, int], NDArray[np.int64]] = {}
        self.voices = sorted({one.speaker for one in found})
        for one in found:
            if one.text in answers.VOICE_LINES:
                prompt = np.repeat(self.silence[:, None], VOICE, 1)
                prompt[:, : one.codes.shape[1]] = one.codes[:, :VOICE]
                self.introductions[one.speaker, answers.VOICE_LINES.index(one.text)] = prompt
            else:
                starts = alignment.word_starts(one.text, one.seconds)
                self.said[one.speaker, one.text] = Line(one.codes, word_tokens(processor, starts, one.codes.shape[1]))


@dataclass(frozen=True)
class Asked(Sequence[dialogue.Clip]):
    """Recordings of one question, each made a clip when it is taken: anew every time."""

    numbers: Sequence[int]
    compose: Callable[[int], dialogue.Clip]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, at: int) -> dialogue.Clip:
        return self.compose(self.numbers[at])


class Users:
    """Clips on the device, and for each speaker what he asks in which of them. Parts of `phrases` are put around."""

    def __init__(self, clips: Sequence[shards.Clip], vocabulary: hearing.Vocabulary, device: str) -> None:
        intents = {said: i for i, intent in enumerate(INTENTS) for said in (*intent.phrasings, *intent.held_out)}
        self.pool = Pool([clip.samples for clip in clips], device)
        self.seconds = [len(clip.samples) / mimi.RATE for clip in clips]
        self.texts = [clip.text for clip in clips]
        self.spans = [vocabulary.spans(clip.text, len(clip.samples) / mimi.RATE) for clip in clips]
        self.asked: dict[str, dict[int, list[int]]] = {}
        self.parts: dict[str, dict[str, int]] = {}
        for number, clip in enumerate(clips):
            if clip.text in PARTS:
                self.parts.setdefault(clip.speaker, {})[clip.text] = number
            if clip.text not in PARTS or clip.text in intents or clip.text in OTHERS:
                mine = self.asked.setdefault(clip.speaker, {})
                mine.setdefault(intents.get(clip.text, dialogue.OTHER), []).append(number)
        self.names = sorted(self.asked)

    def questions(self, name: str, speed: float, rng: np.random.Generator) -> dict[int, Asked]:
        """By intent, played `speed` times as fast; composed when one is chosen."""
        compose = lambda number: self.composed(name, number, speed, rng)  # noqa: E731
        return {intent: Asked(numbers, compose) for intent, numbers in self.asked[name].items()}

    def composed(self, name: str, number: int, speed: float, rng: np.random.Generator) -> dialogue.Clip:
        """A recording, often with something before it, seldom with something after it, by the same speaker."""
        text, parts = self.texts[number], self.parts.get(name, {})
        z, before, after = rng.random(), "", ""
        if parts and z < COMPOSED:
            before = _one([part for part in phrases.leads(text) if part in parts], rng)
        if parts and COMPOSED - BOTH < z < COMPOSED + AFTER:
            after = _one([part for part in phrases.AFTER if part in parts], rng)
        if not phrases.allowed(before, text, after):
            before = after = ""
        numbers = [*([parts[before]] if before else []), number, *([parts[after]] if after else [])]
        placed: list[tuple[int, float]] = []
        time = 0.0
        for one in numbers:
            placed.append((one, time))
            time += self.seconds[one] / speed + float(rng.uniform(*PAUSE))
            end = placed[-1][1] + self.seconds[one] / speed
        return dialogue.Clip(tuple(placed), end)


def _one(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))] if texts else ""
