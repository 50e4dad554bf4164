"""The small SentencePiece vocabulary: 0 unknown (in the text stream: a word comes next), 1 begin, 2 end, 3 pad."""

from __future__ import annotations

import io

import answers
import corpus
import other_lines
import sentencepiece
from intents import INTENTS
from lm import PAD, TEXT_CARD, WORD_NEXT

LETTERS = " ".join("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'\"-:;<>()&/")


def sentences() -> list[str]:
    """What the pieces are chosen for: answers and prompts first."""
    said = [f"<system> {prompt} <system>" for prompt in answers.PROMPTS] * 20 + answers.lines() * 10
    said += [phrasing for intent in INTENTS for phrasing in intent.phrasings[:4]]  # few: only prompts are like them
    return [*said, *other_lines.WRITTEN, *corpus.CODEC_LINES, *[LETTERS] * 3]


def train() -> bytes:
    """A SentencePiece model of TEXT_CARD pieces, the same for the same sentences."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()), model_writer=model, vocab_size=TEXT_CARD, model_type="unigram",
        unk_id=WORD_NEXT, bos_id=1, eos_id=2, pad_id=PAD, character_coverage=1.0, hard_vocab_limit=True,
        normalization_rule_name="identity", num_threads=1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def load(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)
