"""When the words of a line begin, guessed from their letters: all the model needs to learn is one place for each."""

from __future__ import annotations

import re

VOWELS = re.compile(r"[aeiouy]+", re.I)
LETTER, VOWEL, PAUSE = 1.0, 1.5, 2.5  # shares of the time: each letter, each group of vowels, each comma or full stop


def share(word: str) -> float:
    letters = sum(c.isalpha() for c in word)
    return LETTER * letters + VOWEL * len(VOWELS.findall(word)) + PAUSE * sum(c in ",.!?" for c in word[:-1])


def word_starts(line: str, seconds: float) -> list[tuple[str, float]]:
    """(word with its punctuation, seconds from the start of the clip)."""
    words = line.split()
    shares = [share(word) + PAUSE * (word[-1] in ",.!?" and i + 1 < len(words)) for i, word in enumerate(words)]
    scale = seconds / sum(shares)
    starts = [scale * sum(shares[:i]) for i in range(len(words))]
    return list(zip(words, starts, strict=True))
