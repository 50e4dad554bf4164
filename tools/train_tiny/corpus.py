"""What is spoken for training and evaluation: sets of (speaker, lines), fixed by one seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import answers
import numpy as np
import other_lines
import phrases
import speakers
from intents import INTENTS
from voices import PRESETS

# Sentences a training user says, by the synthesizer: Kokoro costs a second of a core each, the others a tenth.
SHARE = {"kokoro": 100, "espeak": 110, "recorded": 140}
CODEC_LINES = (
    "The quick brown fox jumps over the lazy dog.", "She sells sea shells by the sea shore.",
    "Peter Piper picked a peck of pickled peppers.", "How vexingly quick daft zebras jump.",
    "A large size in stockings is hard to sell.", "The boy was there when the sun rose.",
    "Kick the ball straight and follow through.", "Help the woman get back to her feet.",
    "These days a chicken leg is a rare dish.", "Rice is often served in round bowls.",
)  # fmt: skip
# Lines of the presets that neither codec nor model is trained on: what the codec is measured with.
CODEC_HELD_OUT = (
    "The juice of lemons makes fine punch.", "Four hours of steady work faced us.",
    "The hogs were fed chopped corn and garbage.", "The box was thrown beside the parked truck.",
    "The birch canoe slid on the smooth planks.", "Glue the sheet to the dark blue background.",
)  # fmt: skip


@dataclass(frozen=True)
class Shard:
    """All lines of one speaker in one set; a file of its own in the corpus."""

    group: str
    name: str
    speaker: speakers.Speaker
    lines: tuple[str, ...]


def trained_phrasings() -> tuple[str, ...]:
    return tuple(said for intent in INTENTS for said in intent.phrasings)


def held_out_phrasings() -> tuple[str, ...]:
    return tuple(said for intent in INTENTS for said in intent.held_out)


def _dealt(texts: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    """All texts in random order, over and over: many users together say each about equally often."""
    return itertools.cycle([texts[int(i)] for i in rng.permutation(len(texts))])


def _share(n: int, decks: Sequence[Iterator[str]], others: Iterator[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Lines of one training user: a third others, the rest of every intent about equally often, and the parts."""
    wanted = n - n // 3
    order = [int(i) for _ in range(-(-wanted // len(INTENTS))) for i in rng.permutation(len(INTENTS))][:wanted]
    said = [*(next(decks[i]) for i in order), *itertools.islice(others, n // 3)]
    return tuple(dict.fromkeys([*said, *phrases.PARTS]))


def agents() -> list[Shard]:
    said = (*answers.lines(), *answers.VOICE_LINES, *CODEC_LINES)
    return [Shard("agents", name, voice, said) for name, voice in PRESETS.items()]


def users(seed: int = 7) -> list[Shard]:
    rng = np.random.default_rng(seed)
    decks, others = [_dealt(intent.phrasings, rng) for intent in INTENTS], _dealt(other_lines.TRAIN, rng)
    return [
        Shard("users", name, speaker, _share(SHARE[name.rstrip("0123456789")], decks, others, rng))
        for name, speaker in speakers.training(seed).items()
    ]


def evaluation() -> list[Shard]:
    """Held-out speakers ask in trained and in held-out phrasings; training users say the latter too."""
    said = (*(i.phrasings[0] for i in INTENTS), *held_out_phrasings(), *other_lines.HELD_OUT)
    strangers = {**speakers.HELD_OUT_VOICES, **speakers.HELD_OUT_SYNTHESIZERS}
    shards = [Shard("evaluation", name, voice, CODEC_HELD_OUT) for name, voice in PRESETS.items()]
    return shards + [Shard("evaluation", name, speaker, said) for name, speaker in strangers.items()]


def everything() -> list[Shard]:
    return agents() + users() + evaluation()
