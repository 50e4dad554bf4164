"""Spoken questions put together from rendered parts: a lead-in, a question or the core of one, and a tail."""

from __future__ import annotations

import re

import other_lines
from intents import INTENTS

# Around whole questions and sentences.
BEFORE = (
    "excuse me", "please", "okay", "so", "well", "now", "um", "all right", "I have a question", "one more question",
    "listen", "hey", "tell me please", "I wonder", "just a question", "oh", "by the way", "next question", "and",
)  # fmt: skip
AFTER = (
    "please", "if you know", "can you tell me", "do you know", "my friend", "then", "I wonder", "alex", "if I may ask",
    "that is my question", "you know",
)  # fmt: skip
# Before a core: a phrase that names what is asked for, like "the capital of france" or "one plus two".
LEADS = (
    "what is", "tell me", "do you know", "how much is", "say", "I want to know", "can you tell me", "please tell me",
    "what about", "and what is", "give me", "could you say", "I need to know", "maybe you know", "I would like to know",
    "so what is", "next I need",
)  # fmt: skip
CORE = re.compile(
    r"(the (capital|capital city|color|opposite|contrary|price|sum|number|sound|address) of .*"
    r"|your (name|age|address|favorite \w+)|\w+ (plus|minus|times|divided by) \w+)"
)
PARTS = tuple(dict.fromkeys((*BEFORE, *AFTER, *LEADS)))


def normal(text: str) -> str:
    """Letters and single spaces only: what two texts share that sound the same."""
    return " ".join(re.findall(r"[a-z]+", text.lower().replace("'s", " is")))


HELD_OUT = frozenset(normal(said) for i in INTENTS for said in i.held_out) | frozenset(
    normal(said) for said in other_lines.HELD_OUT
)
KNOWN = {normal(said): number for number, i in enumerate(INTENTS) for said in i.phrasings}


def leads(text: str) -> tuple[str, ...]:
    """What may be said right before `text`."""
    return (*BEFORE, *LEADS) if CORE.fullmatch(text) else BEFORE


def allowed(before: str, text: str, after: str) -> bool:
    """Whether the whole is no phrasing of the evaluation, nor one that by chance asks something else."""
    whole, own = normal(f"{before} {text} {after}"), KNOWN.get(normal(text))
    return whole not in HELD_OUT and KNOWN.get(whole, own) == own
