"""Talks with the shipped model through the package: what is said when, and what that sounds like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import answers
import numpy as np
from intents import Intent
from measures import Sound, words

import personaplex

FRAME, RATE = personaplex.FRAME, 24000
LEAD, LISTEN = 6, 64  # frames before a question, and after its end
LOUD = 0.01  # root mean square of 20 ms that counts as speech
STYLES = ("assistant", "teacher", "customer-service", "focused")  # presets in the order of answers.PROMPTS


@dataclass
class Said:
    """What the agent said: text by the frame that completed it, and the sound, both from the user's first frame."""

    texts: list[tuple[int, str]] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    def text(self, first: float = 0, last: float = float("inf")) -> str:
        """Between two frames."""
        return "".join(text for frame, text in self.texts if first <= frame < last).strip()

    @property
    def sound(self) -> Sound:
        return np.concatenate(self.sounds) if self.sounds else np.zeros(0, np.float32)

    def loud(self) -> np.ndarray:
        """Numbers of the stretches of 20 ms that hold speech."""
        sound = self.sound
        pieces = sound[: len(sound) // 480 * 480].reshape(-1, 480)
        return np.flatnonzero(np.sqrt((pieces**2).mean(1)) > LOUD)


class Company:
    """Sessions of one model, one for each voice and prompt, begun anew for every talk."""

    def __init__(self, model: personaplex.Model, greedy: bool = False) -> None:
        self.model, self.greedy = model, greedy
        self.sessions: dict[tuple[str, str], personaplex.Session] = {}

    def talk(self, sound: Sound, voice: str, prompt: str, seed: int) -> Said:
        """Plays `sound`; frame i of the result is what is heard while frame i of the user plays."""
        if (voice, prompt) not in self.sessions:
            self.sessions[voice, prompt] = self.model.session(voice, prompt, seed=0, greedy=self.greedy)
        session = self.sessions[voice, prompt]
        session.reset(seed)
        said = Said()
        padded = np.zeros(-(-len(sound) // FRAME) * FRAME, np.float32)
        padded[: len(sound)] = sound
        for frame, pcm in enumerate(padded.reshape(-1, FRAME)):
            out = session.step(pcm)
            if out.text:
                said.texts.append((frame, out.text))
            said.sounds.append(out.audio)
            said.milliseconds.append(out.step_ms)
        return said

    def ask(self, question: Sound, voice: str, prompt: str, seed: int, listen: int = LISTEN) -> Said:
        """One question after half a second, and the time for an answer."""
        quiet = np.zeros
        parts = [quiet(LEAD * FRAME, np.float32), question, quiet(listen * FRAME, np.float32)]
        return self.talk(np.concatenate(parts), voice, prompt, seed)


def wanted(intent: Intent | None, style: int) -> str:
    return " ".join(answers.answer(intent, style))


def same(got: str, expected: str) -> bool:
    return words(got) == words(expected)


def delay(said: Said, question: Sound) -> float | None:
    """Seconds from the end of the question to the first sound of the answer."""
    end = LEAD * FRAME / RATE + len(question) / RATE
    after = [piece * 0.02 for piece in said.loud() if piece * 0.02 >= end]
    return after[0] - end if after else None


@dataclass(frozen=True)
class Asked:
    """A question at a time in seconds, and what has to be answered."""

    at: float
    sound: Sound
    expected: str

    @property
    def end(self) -> float:
        return self.at + len(self.sound) / RATE


def mixed(asked: Sequence[Asked], seconds: float) -> Sound:
    out = np.zeros(int(seconds * RATE), np.float32)
    for one in asked:
        begin = int(one.at * RATE)
        out[begin : begin + len(one.sound)] += one.sound[: len(out) - begin]
    return out


def answered(said: Said, one: Asked, until: float) -> bool:
    """Whether the whole answer came between the question and `until` seconds."""
    rate = RATE / FRAME
    return same(said.text(one.end * rate, until * rate), one.expected)
