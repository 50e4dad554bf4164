"""The corpus as the language model meets it: the agent's lines as codes and text tokens, the users' clips by intent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import alignment
import answers
import dialogue
import mimi
import numpy as np
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
HELD_BACK = ("espeak55", "recorded14")  # training users heard in the log's second half only


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


class AgentLines:
    """Every answer and every introduction in every voice."""

    def __init__(
        self,
        clips: Sequence[shards.Clip],
        codec: nn.Module,
        processor: sentencepiece.SentencePieceProcessor,
        device: str,
    ) -> None:
        self.silence, self.sine = constant_codes(codec, device)
        self.said: dict[tuple[str, str], Line] = {}
        self.introductions: dict[tuple[str, int], NDArray[np.int64]] = {}
        known = {*answers.lines(), *answers.VOICE_LINES}
        clips = [clip for clip in clips if clip.text in known]
        self.voices = sorted({clip.speaker for clip in clips})
        most = max(self._frames(clip) for clip in clips)
        for at in range(0, len(clips), 128):
            part = clips[at : at + 128]
            sounds = torch.zeros(len(part), (LEAD + most) * mimi.FRAME)
            for row, clip in zip(sounds, part, strict=True):
                row[LEAD * mimi.FRAME :][: len(clip.samples)] = torch.from_numpy(clip.samples).float() / 32768
            found = encode(codec, sounds.to(device)).cpu().numpy()[:, :, LEAD:]
            for codes, clip in zip(found, part, strict=True):
                self._add(clip, codes[:, : self._frames(clip)], processor)

    @staticmethod
    def _frames(clip: shards.Clip) -> int:
        return -(-len(clip.samples) // mimi.FRAME) + TAIL

    def _add(
        self, clip: shards.Clip, codes: NDArray[np.int64], processor: sentencepiece.SentencePieceProcessor
    ) -> None:
        if clip.text in answers.VOICE_LINES:
            prompt = np.repeat(self.silence[:, None], VOICE, 1)
            prompt[:, : codes.shape[1]] = codes[:, :VOICE]
            self.introductions[clip.speaker, answers.VOICE_LINES.index(clip.text)] = prompt
        else:
            starts = alignment.word_starts(clip.text, len(clip.samples) / mimi.RATE)
            self.said[clip.speaker, clip.text] = Line(codes, word_tokens(processor, starts, codes.shape[1]))


class Users:
    """Clips on the device, and for each speaker what he asks in which of them."""

    def __init__(self, clips: Sequence[shards.Clip], device: str) -> None:
        intents = {said: i for i, intent in enumerate(INTENTS) for said in (*intent.phrasings, *intent.held_out)}
        self.pool = Pool([clip.samples for clip in clips], device)
        self.seconds = [len(clip.samples) / mimi.RATE for clip in clips]
        self.texts = [clip.text for clip in clips]
        self.asked: dict[str, dict[int, list[int]]] = {}
        for number, clip in enumerate(clips):
            mine = self.asked.setdefault(clip.speaker, {})
            mine.setdefault(intents.get(clip.text, dialogue.OTHER), []).append(number)
        self.names = sorted(self.asked)

    def questions(self, name: str, speed: float) -> dict[int, list[dialogue.Clip]]:
        """By intent, played `speed` times as fast."""
        return {
            intent: [dialogue.Clip(number, self.seconds[number] / speed) for number in numbers]
            for intent, numbers in self.asked[name].items()
        }
