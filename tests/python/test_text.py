"""Text: prompts to tokens, tokens to text one at a time, words on the 80 ms grid."""

import itertools
import unicodedata

import fakes
import hypothesis.strategies as st
import pytest
from hypothesis import given

from personaplex.errors import WeightsError
from personaplex.text import UNKNOWN, Detokenizer, Tokenizer, Word, check_vocabulary

TOKENIZER = Tokenizer.of_random()
SP = TOKENIZER._sp
PAD = fakes.PAD


def shown(tokens, tokenizer=TOKENIZER):
    detokenizer = Detokenizer(tokenizer)
    return "".join(detokenizer.push(t) for t in tokens) + detokenizer.flush()


def byte_ids(data):
    return [SP.piece_to_id(f"<0x{b:02X}>") for b in data]


def test_the_shipped_model_has_the_ids_of_the_real_one():
    assert TOKENIZER.size == 512
    assert (SP.unk_id(), SP.bos_id(), SP.eos_id(), SP.pad_id()) == (0, 1, 2, 3)
    assert all(SP.is_byte(4 + b) and SP.id_to_piece(4 + b) == f"<0x{b:02X}>" for b in range(256))


def test_prompt_is_stripped_and_wrapped():
    tokens = TOKENIZER.encode_prompt("  You are a friend.\n")
    assert tokens == TOKENIZER.encode_prompt("You are a friend.")
    assert SP.decode(tokens) == "<system> You are a friend. <system>"
    assert TOKENIZER.encode_prompt(" \n ") == TOKENIZER.encode_prompt("") == []


@given(st.text(max_size=60))
def test_any_text_comes_back(text):
    ids = SP.encode(text)
    visible = "".join("\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)
    assert shown(ids).replace(" ", "") == visible.replace(" ", "").replace("\u2581", "")


def test_control_characters_never_reach_a_terminal():
    assert shown(byte_ids(b"\x1b[2J\x7f\xc2\x9b")) == "\ufffd[2J\ufffd\ufffd"
    assert shown(byte_ids(b"\n\t")) == "\n\t"


@given(st.lists(st.integers(-2, 600), max_size=60), st.data())
def test_incremental_text_is_the_transcript(tokens, data):
    text = shown(tokens)
    assert TOKENIZER.transcript(tokens) == text.strip()
    assert " ".join(w.text for w in TOKENIZER.words(tokens)) == " ".join(text.split())
    # Padding between pieces changes nothing that is shown.
    at = data.draw(st.integers(0, len(tokens)))
    assert shown([*tokens[:at], PAD, 0, *tokens[at:]]) == text


def test_ids_that_are_never_shown():
    assert shown([0, PAD, 1, 2]) == ""


def test_bytes_wait_until_the_character_is_whole():
    smile = byte_ids("\N{GRINNING FACE}".encode())
    detokenizer = Detokenizer(TOKENIZER)
    assert [detokenizer.push(t) for t in smile] == ["", "", "", "\N{GRINNING FACE}"]
    assert not detokenizer.pending


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_unfinished_bytes_become_the_replacement_character(cut):
    start = byte_ids("\N{GRINNING FACE}".encode()[:cut])
    assert shown(start) == "\ufffd"
    assert shown([*start, SP.piece_to_id("a")]) == "\ufffda"
    assert shown(byte_ids(b"\xff")) == "\ufffd"


def test_a_run_of_unknown_ids_is_marked_once():
    a = SP.piece_to_id("a")
    assert shown([a, 512, 31999, PAD, 700, a, -1]) == f"a{UNKNOWN}a{UNKNOWN}"


def test_words_start_with_their_first_piece_and_end_with_their_last():
    first, second = SP.encode("hello"), SP.encode("friend")
    tokens = [PAD, PAD, *first, PAD, PAD, *second, 0]
    start = 2 + len(first) + 2
    assert TOKENIZER.words(tokens) == [
        Word("hello", 0.16, round(0.08 * (2 + len(first)), 2)),
        Word("friend", round(0.08 * start, 2), round(0.08 * (start + len(second)), 2)),
    ]


def test_a_word_of_bytes_starts_with_its_first_byte():
    smile = byte_ids("\N{GRINNING FACE}".encode())
    assert TOKENIZER.words([PAD, smile[0], PAD, *smile[1:]]) == [Word("\N{GRINNING FACE}", 0.08, 0.48)]
    assert TOKENIZER.words([PAD, smile[0], smile[1]]) == [Word("\ufffd", 0.08, 0.24)]


@pytest.mark.parametrize("between", [0, 4])
def test_a_broken_character_ends_before_the_next_word(between):
    a = SP.encode("a")[0]  # with the space in front
    tokens = [*byte_ids(b"\xe2"), *[PAD] * between, a]
    assert TOKENIZER.words(tokens) == [
        Word("\ufffd", 0.0, round(0.08 * (1 + between), 2)),
        Word("a", round(0.08 * (1 + between), 2), round(0.08 * (2 + between), 2)),
    ]


@given(
    st.lists(st.one_of(st.integers(-2, 600), st.sampled_from(byte_ids(b" \n\xc2\xa0\xe2\xf0\x9f\xff"))), max_size=40)
)
def test_words_follow_each_other(tokens):
    words = TOKENIZER.words(tokens)
    assert all(0 <= word.start < word.end <= 0.08 * len(tokens) + 1e-9 for word in words)
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))


def test_a_copy_goes_its_own_way():
    smile = byte_ids("\N{GRINNING FACE}".encode())
    one = Detokenizer(TOKENIZER)
    one.push(smile[0])
    two = one.copy()
    assert [two.push(t) for t in smile[1:]][-1] == "\N{GRINNING FACE}"
    assert one.flush() == "\ufffd"


def test_wrong_tokenizer_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="found none"):
        Tokenizer.of_directory(tmp_path)
    for data in (b"", b"not a model", bytes(100)):
        (tmp_path / "tokenizer_spm_32k_3.model").write_bytes(data)
        with pytest.raises(WeightsError, match="not a SentencePiece model"):
            Tokenizer.of_directory(tmp_path)
    for name in ("a.model", "b.model"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "tokenizer_spm_32k_3.model").unlink()
    with pytest.raises(WeightsError, match=r"found a\.model, b\.model"):
        Tokenizer.of_directory(tmp_path)


def test_directory_tokenizer_is_found_by_name(tmp_path):
    (tmp_path / "tokenizer_spm_32k_3.model").write_bytes(SP.serialized_model_proto())
    (tmp_path / "other.model").write_bytes(b"")
    assert Tokenizer.of_directory(tmp_path).size == 512


def test_tokens_beyond_the_model_are_refused():
    check_vocabulary([1, 511], 512)
    with pytest.raises(WeightsError, match="token 512"):
        check_vocabulary([512], 512)
