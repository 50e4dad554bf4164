"""What the agent says: four styles, each set by a system prompt, and the lines that all answers are made of."""

from __future__ import annotations

from intents import INTENTS, Intent

# The presets of `personaplex.prompts`, word by word: assistant, teacher, customer-service, focused. 0 full answers,
# 1 chatty, 2 service, 3 brief.
PROMPTS = (
    "You are a helpful assistant in a spoken conversation. Answer in one or two short, natural sentences, "
    "and ask when something is unclear.",
    "You are a wise and friendly teacher. Answer questions or provide advice in a clear and engaging way.",
    "You work for the customer service of a small online shop. Greet the caller, find out what happened, "
    "stay calm and polite, and offer a clear next step.",
    "You answer exactly the question that was asked. Be brief and concrete, say so when you do not know, "
    "and do not change the subject.",
)
FULL, CHATTY, SERVICE, BRIEF = range(4)

CHATTY_PREFIX = "Good question!"
SERVICE_SUFFIX = "Anything else?"
FALLBACK = "Sorry, could you say that again?"
FALLBACK_BRIEF = "Pardon?"
NAME = "My name is Alex."
SERVICE_NAME = "My name is Sam."

# A preset's introduction, played to the model before a talk; never answers.
VOICE_LINES = ("Hello, this is my voice.", "I like to talk with you.", "The morning light is warm.")


def answer(intent: Intent | None, style: int) -> tuple[str, ...]:
    """The lines, each spoken as a whole, that answer `intent` (None: anything else) in `style`."""
    if intent is None:
        return (FALLBACK_BRIEF if style == BRIEF else FALLBACK,)
    if style == BRIEF:
        return (intent.brief,)
    full = SERVICE_NAME if style == SERVICE and intent.full == NAME else intent.full
    if style == CHATTY and intent.question:
        return CHATTY_PREFIX, full
    if style == SERVICE and intent.question:
        return full, SERVICE_SUFFIX
    return (full,)


def lines() -> list[str]:
    """Every line the agent can say, sorted."""
    said = {line for intent in (*INTENTS, None) for style in range(len(PROMPTS)) for line in answer(intent, style)}
    return sorted(said)
