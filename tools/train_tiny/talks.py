"""Whole talks as token grids: voice and system prompt, a user heard through a microphone, answers at their time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import answers
import dialogue
import hearing
import mimi
import numpy as np
import other_lines
import sentencepiece
import torch
from lines import VOICE, AgentLines, Users, encode
from lm import PAD, TEXT_CARD, Sizes
from rooms import channel, microphone
from torch import Tensor, nn
from warps import moved

GAP = 6  # frames of silence before and after the system prompt
UNMOVED = 0.25  # of the talks: the user nearly as recorded
LOWEST, HIGHEST = 0.8, 1.3  # pitch, and half as much of the formants
SLOWEST, FASTEST = 0.82, 1.25  # rate of speech
STRETCHED = (0.75, 1.35)  # tempos that the phase vocoder is used for
ROWS = 64 * 400  # frames encoded at once


NAMES = ("tokens", "live", "speaking", "words")


@dataclass(frozen=True)
class Manner:
    """How a user's recordings are changed in a talk: pitch and formants with `speed`, the rest apart from the pitch."""

    speed: float = 1.0
    tempo: float = 1.0
    formants: float = 1.0

    @property
    def rate(self) -> float:
        return self.speed * self.tempo

    @staticmethod
    def drawn(rng: np.random.Generator) -> Manner:
        """Somebody else. Formants go half as far as the pitch in the mean: so do people's."""
        if rng.random() < UNMOVED:
            return Manner(float(rng.uniform(0.95, 1.05)))
        speed = math.exp(rng.uniform(math.log(LOWEST), math.log(HIGHEST)))
        tempo = min(max(float(rng.uniform(SLOWEST, FASTEST)) / speed, STRETCHED[0]), STRETCHED[1])
        formants = speed**-0.5 * float(rng.uniform(0.9, 1.12))
        return Manner(speed, tempo, formants)


@dataclass(frozen=True)
class Talks:
    """`tokens` [B, rows, T] with delays and start tokens; `live` [B, T]: the model's own frames; `speaking` [B, T];
    `words` [B, T]: what the user says, as `hearing` numbers it."""

    tokens: Tensor
    live: Tensor
    speaking: Tensor
    words: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def write(self, at: Tensor, other: Talks) -> None:
        """Rows `at` become those of `other`."""
        for name in NAMES:
            getattr(self, name)[at] = getattr(other, name)

    def rows(self, at: Tensor | slice) -> Talks:
        return Talks(*(getattr(self, name)[at] for name in NAMES))

    @staticmethod
    def join(parts: list[Talks]) -> Talks:
        return Talks(*(torch.cat([getattr(p, name) for p in parts]) for name in NAMES))


def delayed(sizes: Sizes, text: Tensor, agent: Tensor, user: Tensor) -> Tensor:
    """Frames [B, T] and twice [B, codebooks, T] -> the grid of tokens that the model sees, begun by start tokens."""
    tokens = torch.cat([text[:, None], agent, user], 1)
    for row, delay in enumerate(sizes.delays):
        if delay:
            tokens[:, row, 1:] = tokens[:, row, :-1].clone()
        tokens[:, row, : delay + 1] = sizes.card if row else TEXT_CARD
    return tokens


class Maker:
    """Makes talks. `codec` encodes the users on `device`. `plain`: users as recorded, near a good microphone."""

    def __init__(
        self,
        sizes: Sizes,
        lines: AgentLines,
        users: Users,
        processor: sentencepiece.SentencePieceProcessor,
        codec: nn.Module,
        device: str,
        seed: int,
        plain: bool = False,
    ) -> None:
        self.sizes, self.lines, self.users, self.codec, self.device = sizes, lines, users, codec, device
        self.processor = processor
        self.rng = np.random.default_rng(seed)
        self.plain = plain

    def prompt(self, style: int) -> list[int]:
        """Tokens of the system prompt: the style's own, now and then another text or none where the style is plain."""
        said, z = answers.PROMPTS[style], self.rng.random()
        if style == answers.FULL and z < 0.15:
            said = other_lines.TRAIN[int(self.rng.integers(len(other_lines.TRAIN)))]
        elif style == answers.FULL and z < 0.20:
            return []
        return self.processor.encode(f"<system> {said} <system>")

    def make(self, count: int, frames: int, skip: int = 0) -> Talks:
        """`count` talks of `frames` frames. With `skip`, four in ten are cut from up to `skip` frames later, where the
        prompt is no longer seen: the model has to hear from its own answers who it is."""
        total, rng, lines, books = frames + skip, self.rng, self.lines, self.sizes.codebooks
        text = np.full((count, total), PAD, np.int64)
        agent = np.tile(lines.silence[None, :, None], (count, 1, total))
        speaking, live = np.zeros((count, total), bool), np.zeros((count, total), bool)
        words = np.full((count, total), hearing.NOTHING, np.int64)
        begins, placed, manners = np.zeros(count, np.int64), [], []
        cuts = np.where(rng.random(count) < 0.4, rng.integers(0, skip + 1, count), 0)
        for row in range(count):
            voice, style = lines.voices[int(rng.integers(len(lines.voices)))], int(rng.integers(len(answers.PROMPTS)))
            prompt = self.prompt(style)
            introduction = 0 if rng.random() < 0.75 else int(rng.integers(len(answers.VOICE_LINES)))
            agent[row, :, 1 : 1 + VOICE] = lines.introductions[voice, introduction]
            at = 1 + VOICE + GAP
            text[row, at : at + len(prompt)] = prompt
            begins[row] = begin = at + len(prompt) + GAP
            manner = Manner() if self.plain else Manner.drawn(rng)
            manners.append(manner)
            name = self.users.names[int(rng.integers(len(self.users.names)))]
            talk = dialogue.plan(
                rng,
                total - int(begin),
                style,
                self.users.questions(name, manner.rate, rng),
                lambda line, voice=voice: len(lines.said[voice, line].text),
            )
            known = begin if cuts[row] == 0 else total
            for turn in talk:
                for number, after in turn.clip.parts:
                    time = turn.at + after
                    placed.append((row, number, int(time * manner.tempo * mimi.RATE), manner.speed))
                    for word, start, stop in self.users.spans[number]:
                        since = begin + hearing.LATE + int((time + start / manner.rate) * dialogue.FRAME_RATE)
                        until = begin + hearing.LATE + int((time + stop / manner.rate) * dialogue.FRAME_RATE)
                        words[row, since:until] = word
                at, end = int(begin) + turn.first, int(begin) + turn.end
                for said in turn.lines:
                    line = lines.said[voice, said]
                    n = max(0, min(len(line.text), end - at))
                    text[row, at : at + n] = line.text[:n]
                    agent[row, :, at : at + n] = line.codes[:, :n]
                    speaking[row, at : at + n] = True
                    at += n
                if turn.first + begin > cuts[row] and not turn.interrupted:
                    known = min(known, end)
            live[row, known:] = True
        user = self._heard(placed, begins, total, manners)
        grid = delayed(self.sizes, *(torch.from_numpy(x).to(self.device) for x in (text, agent)), user)
        window = torch.from_numpy(cuts[:, None] + np.arange(frames)[None]).to(self.device)
        rows = 2 * books + 1
        return Talks(
            grid.gather(2, window[:, None].expand(-1, rows, -1)).to(torch.int16),
            *(torch.from_numpy(x).to(self.device).gather(1, window) for x in (live, speaking, words)),
        )

    def _heard(
        self, placed: list[tuple[int, int, int, float]], begins: np.ndarray, total: int, manners: list[Manner]
    ) -> Tensor:
        """The users' codes [B, codebooks, total]: a tone during the prompt, then what the microphone gives."""
        codes = torch.empty(len(begins), self.sizes.codebooks, total, dtype=torch.long, device=self.device)
        codes[:] = torch.from_numpy(self.lines.sine).to(self.device)[None, :, None]
        size = max(1, ROWS // total)
        for first in range(0, len(begins), size):
            part = [p for p in placed if first <= p[0] < first + size]
            mine = manners[first : first + size]
            tempo, formants = (
                torch.tensor([getattr(m, x) for m in mine], device=self.device) for x in ("tempo", "formants")
            )
            length = total * mimi.FRAME
            longest = 1.0 if self.plain else STRETCHED[1]  # one length for all: one plan for their transforms
            sound = torch.zeros(len(mine), math.ceil(length * longest), device=self.device)
            if part:
                rows, clips, at, speeds = (torch.tensor(x, device=self.device) for x in zip(*part, strict=True))
                self.users.pool.play(sound, rows - first, clips, at, speeds.float())
            quiet = torch.tensor([all(p[0] != first + i for p in part) for i in range(len(sound))], device=self.device)
            if self.plain:
                heard = microphone(sound * 10 ** (self._uniform(len(sound), -8, 5) / 20))
            else:
                heard = channel(moved(sound, length, tempo, formants))
            loud = 10 ** (self._uniform(len(sound), -60, -28) / 20) * quiet[:, None]  # a noisy room, nobody speaks
            found = encode(self.codec, (heard + loud * torch.randn_like(heard)).clamp(-1, 1))
            for i, begin in enumerate(begins[first : first + size]):
                codes[first + i, :, begin:] = found[i, :, : total - begin]
        return codes

    def _uniform(self, rows: int, low: float, high: float) -> Tensor:
        return torch.from_numpy(self.rng.uniform(low, high, (rows, 1)).astype(np.float32)).to(self.device)
