"""Makes python/personaplex/data/random.model, the small SentencePiece model of the random:* models.

Run: python tools/make_tokenizer.py
Ids as PersonaPlex uses them: 0 unknown (never shown), 1 begin, 2 end, 3 padding (never shown), then 256 bytes, then
pieces; 512 in all. Trained on the sentences below, so that it is ours to ship.
"""

import io
from pathlib import Path

import sentencepiece

TARGET = Path(__file__).resolve().parent.parent / "python" / "personaplex" / "data" / "random.model"

SUBJECTS = ["the teacher", "a friend", "my neighbour", "the river", "this old clock", "your question", "our small shop"]
VERBS = ["listens to", "answers", "remembers", "carries", "explains", "forgets", "wonders about", "looks after"]
OBJECTS = ["the morning light", "a simple story", "every word", "the long road home", "some fresh bread", "the weather"]
ENDINGS = ["today.", "without a sound.", "as well as it can.", "again and again.", "when you ask.", "before dinner!"]
SENTENCES = [
    "Hello, how can I help you?",
    "You are a wise and friendly teacher. Answer clearly, and be engaging.",
    "You are a helpful assistant in a spoken conversation.",
    "Thank you for calling; what happened with your order?",
    "<system> Speak slowly and calmly. <system>",
    "I do not know that, but we can find out together.",
]


def main() -> None:
    lines = [f"{s.capitalize()} {v} {o} {e}" for s in SUBJECTS for v in VERBS for o in OBJECTS for e in ENDINGS]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20 + lines),
        model_writer=model,
        vocab_size=512,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",  # the default rule would add 240 KB of Unicode tables
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        num_threads=1,
        minloglevel=2,
    )
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(model.getvalue())
    print(f"{TARGET.name}: {len(model.getvalue())} bytes")


if __name__ == "__main__":
    main()
