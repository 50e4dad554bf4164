"""The course of a made talk: who asks what when, what is answered, who interrupts whom; times only, no sound."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import answers
import numpy as np
from intents import INTENTS, SUMS

FRAME_RATE = 12.5
REACT = 5  # frames from the end of a question to its answer
STOP = 5  # frames from the start of an interruption to silence
OTHER = -1  # in place of an intent's number: any other sentence

OTHERS, ADDITIONS = 0.26, 0.24  # shares of the turns
INTERRUPTED = 0.30  # of the answers that are long enough
SILENT = 0.04  # of the talks: nobody says anything
LATE = 0.15  # of the talks: the user waits for 8 s first


@dataclass(frozen=True)
class Clip:
    """A question of one or more recordings: the number of each in a pool and the second that it begins at; and its
    length."""

    parts: tuple[tuple[int, float], ...]
    seconds: float


@dataclass(frozen=True)
class Turn:
    """One question and its answer. Frames count from the user's phase; the answer ends before frame `end`, which an
    interruption may put in the middle of a line."""

    intent: int
    clip: Clip
    at: float  # seconds
    lines: tuple[str, ...]
    first: int
    end: int
    interrupted: bool


def _intent(rng: np.random.Generator) -> int:
    z = rng.random()
    if z < OTHERS:
        return OTHER
    fixed = len(INTENTS) - len(SUMS)
    return int(rng.integers(fixed, len(INTENTS))) if z < OTHERS + ADDITIONS else int(rng.integers(fixed))


def plan(
    rng: np.random.Generator,
    frames: int,
    style: int,
    questions: Mapping[int, Sequence[Clip]],
    line_frames: Callable[[str], int],
) -> list[Turn]:
    """Turns that fit into `frames`. `questions` are the clips of one user by intent; what he never recorded is never
    asked. Every answer that is not interrupted ends before the next question begins."""
    if rng.random() < SILENT or not questions:
        return []
    turns: list[Turn] = []
    time = 8.0 if rng.random() < LATE else float(rng.uniform(0.2, 2.5))
    while True:
        intent = _intent(rng)
        if intent not in questions:
            known = list(questions)
            intent = known[int(rng.integers(len(known)))]
        clip = questions[intent][int(rng.integers(len(questions[intent])))]
        lines = answers.answer(None if intent == OTHER else INTENTS[intent], style)
        first = math.ceil((time + clip.seconds) * FRAME_RATE) + REACT
        end = first + sum(line_frames(line) for line in lines)
        if end > frames:
            return turns
        interrupted = rng.random() < INTERRUPTED and end - first > 12
        if interrupted:
            cut = int(rng.integers(first + 4, end - 6))
            turns.append(Turn(intent, clip, time, lines, first, cut + STOP, True))
            time = cut / FRAME_RATE + float(rng.uniform(0, 0.08))
        else:
            turns.append(Turn(intent, clip, time, lines, first, end, False))
            pause = float(rng.uniform(0.1, 2.0)) + (float(rng.uniform(0, 6)) if rng.random() < 0.1 else 0.0)
            time = end / FRAME_RATE + pause
