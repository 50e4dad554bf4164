"""Text to tokens and back: the SentencePiece model, an incremental detokenizer, words with times."""

import codecs
import importlib.resources
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personaplex.audio import FRAME_SECONDS
from personaplex.errors import WeightsError

UNKNOWN = " \u2047 "  # SentencePiece's own surface for a piece it does not know
_SPACE = "\u2581"
# Byte pieces can spell control characters; a terminal would obey them.
_CONTROLS = dict.fromkeys([c for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"], "\ufffd")
_END_OF_PADDING = 0  # with the padding id, the two ids that are never shown


@dataclass(frozen=True)
class Word:
    """A word of the agent; times in seconds on the output's timeline, multiples of 0.08."""

    text: str
    start: float
    end: float


class Tokenizer:
    """A SentencePiece model together with the two text ids that mean silence.

    Args:
        processor: a sentencepiece.SentencePieceProcessor.
        padding_id: the id of "no text in this frame" (3).
    """

    def __init__(self, processor: Any, padding_id: int = 3) -> None:
        self._sp = processor
        self.size: int = processor.get_piece_size()
        self.silent_ids = frozenset({_END_OF_PADDING, padding_id})

    @classmethod
    def load(cls, path: str | os.PathLike[str], padding_id: int = 3) -> "Tokenizer":
        """Reads a .model file; WeightsError when it is none."""
        import sentencepiece

        data = Path(path).read_bytes()
        processor = sentencepiece.SentencePieceProcessor()
        try:
            loaded = bool(data) and processor.LoadFromSerializedProto(data)
        except RuntimeError:
            loaded = False
        if not loaded:
            raise WeightsError(f"[tokenizer] {str(path)!r} is not a SentencePiece model; fetch the checkpoint again.")
        return cls(processor, padding_id)

    @classmethod
    def of_directory(cls, directory: Path, padding_id: int = 3) -> "Tokenizer":
        """The one *.model file of a checkpoint directory."""
        found = sorted(directory.glob("*.model"))
        preferred = [path for path in found if path.name.startswith("tokenizer_spm")] or found
        if len(preferred) != 1:
            names = ", ".join(path.name for path in preferred) or "none"
            raise WeightsError(
                f"[tokenizer] expected one SentencePiece file (tokenizer_spm_32k_3.model) in {str(directory)!r}, "
                f"found {names}."
            )
        return cls.load(preferred[0], padding_id)

    @classmethod
    def of_random(cls, padding_id: int = 3) -> "Tokenizer":
        """The small tokenizer that ships with the package, for random:* models."""
        with importlib.resources.as_file(importlib.resources.files("personaplex") / "data" / "random.model") as path:
            return cls.load(path, padding_id)

    def encode_prompt(self, text: str) -> list[int]:
        """Tokens of "<system> TEXT <system>", one per frame; no tokens for an empty text."""
        text = text.strip()
        return list(self._sp.encode(f"<system> {text} <system>")) if text else []

    def piece(self, token: int) -> str | bytes | None:
        """What a token shows: text, one byte of UTF-8, or None for nothing."""
        if token in self.silent_ids:
            return None
        if not 0 <= token < self.size or self._sp.is_unknown(token):
            return UNKNOWN
        if self._sp.is_control(token):
            return None
        piece: str = self._sp.id_to_piece(token)
        if self._sp.is_byte(token):
            return bytes([int(piece[3:-1], 16)])  # "<0xE2>"
        return piece.replace(_SPACE, " ")

    def transcript(self, tokens: Iterable[int]) -> str:
        """All shown text of a token row, without the space in front."""
        detokenizer = Detokenizer(self)
        return ("".join(detokenizer.push(int(t)) for t in tokens) + detokenizer.flush()).strip()

    def words(self, tokens: Iterable[int]) -> list[Word]:
        """Words with times, one after the other; token i belongs to frame i. A word starts with its first piece."""
        detokenizer = Detokenizer(self)
        words: list[tuple[str, int, int]] = []
        open_word = False
        start = frame = -1
        for frame, token in enumerate(tokens):
            if not detokenizer.pending:
                start = frame
            open_word = _extend(words, detokenizer.push(int(token)), start, frame, open_word)
        _extend(words, detokenizer.flush(), start, frame, open_word)
        return [Word(t, round(a * FRAME_SECONDS, 2), round((b + 1) * FRAME_SECONDS, 2)) for t, a, b in words]


def _extend(words: list[tuple[str, int, int]], text: str, start: int, frame: int, open_word: bool) -> bool:
    """Adds text that was held since frame `start` and shown at `frame`; true when the last word may go on."""
    for char in text:
        if char.isspace():
            open_word = False
            if words and words[-1][2] == frame and start < frame:
                # Bytes held since `start` have ended as U+FFFD: only what follows the space is of this frame.
                words[-1] = (*words[-1][:2], frame - 1)
            start = frame
        elif open_word:
            words[-1] = (words[-1][0] + char, words[-1][1], frame)
        else:
            words.append((char, start, frame))
            open_word = True
    return open_word


class Detokenizer:
    """Tokens in, shown text out, one at a time.

    Pieces that are single bytes are held until they form whole UTF-8 characters; what can no longer become one is
    shown as U+FFFD, as are control characters. A run of tokens outside the vocabulary shows one marker.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._unknown = False

    @property
    def pending(self) -> bool:
        """Whether bytes of an unfinished character are held."""
        return bool(self._utf8.getstate()[0])

    def push(self, token: int) -> str:
        """The text that this token completes, often empty."""
        piece = self._tokenizer.piece(token)
        if piece is None:
            return ""
        if isinstance(piece, bytes):
            self._unknown = False
            return self._utf8.decode(piece).translate(_CONTROLS)
        text = self.flush()
        if piece == UNKNOWN:
            repeated, self._unknown = self._unknown, True
            return text if repeated else text + piece
        self._unknown = False
        return text + piece

    def flush(self) -> str:
        """The end of the text: an unfinished character becomes U+FFFD."""
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return text

    def copy(self) -> "Detokenizer":
        other = Detokenizer(self._tokenizer)
        other._utf8.setstate(self._utf8.getstate())
        other._unknown = self._unknown
        return other


def check_vocabulary(tokens: Sequence[int], text_card: int) -> None:
    """WeightsError when the tokenizer speaks ids that the model has no embedding for."""
    if tokens and max(tokens) >= text_card:
        raise WeightsError(
            f"[tokenizer] the prompt has token {max(tokens)}, the model knows {text_card}: "
            "this tokenizer belongs to another checkpoint."
        )
