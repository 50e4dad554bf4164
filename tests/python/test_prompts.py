"""System prompts: presets, files, and text."""

import pytest

from personaplex import prompts


def test_the_presets():
    assert list(prompts.PROMPTS) == ["assistant", "focused", "customer-service", "teacher"]
    assert prompts.resolve("teacher") == (
        "You are a wise and friendly teacher. Answer questions or provide advice in a clear and engaging way."
    )
    assert len(set(prompts.PROMPTS.values())) == 4


def test_any_other_text_is_itself():
    assert prompts.resolve("  You sell fish. ") == "You sell fish."
    assert prompts.resolve("") == ""


def test_a_file_is_read(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"\xef\xbb\xbf You speak \xc3\xa9l\xc3\xa9gantly.\n")
    assert prompts.resolve(f"@{path}") == "You speak \u00e9l\u00e9gantly."


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\xff\xfe", "not UTF-8"), (b"a\0b", "NUL"), (b"x" * (prompts.MAX_FILE_BYTES + 1), "longer than")],
)
def test_unusable_files_are_refused(tmp_path, data, message):
    path = tmp_path / "prompt.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        prompts.resolve(f"@{path}")


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        prompts.resolve(f"@{tmp_path / 'none.txt'}")
    with pytest.raises(ValueError, match="cannot read"):
        prompts.resolve(f"@{tmp_path}")


def test_only_text_is_a_prompt():
    with pytest.raises(TypeError, match="NoneType"):
        prompts.resolve(None)
