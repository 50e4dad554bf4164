"""Which word the user is saying in each frame: what the model has to tell besides its answer while it is trained.

Answers alone can be learned by heart, one recording after the other; words are shared by all questions and speakers.
"""

from __future__ import annotations

from collections.abc import Iterable

import alignment
import phrases

LATE = 4  # frames after a word is said that it has to be told
NOTHING = 0  # the class of all other frames


class Vocabulary:
    """Every word of some texts, numbered from 1 on."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.words = sorted({word for text in texts for word in phrases.normal(text).split()})
        self.numbers = {word: number for number, word in enumerate(self.words, 1)}

    def __len__(self) -> int:
        return len(self.words) + 1

    def spans(self, text: str, seconds: float) -> list[tuple[int, float, float]]:
        """(word, start, end) in seconds from the start of a clip."""
        starts = alignment.word_starts(phrases.normal(text), seconds)
        ends = [*(start for _, start in starts[1:]), seconds]
        return [(self.numbers[word], start, end) for (word, start), end in zip(starts, ends, strict=True)]
