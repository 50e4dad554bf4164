"""System prompts: the presets, and text read from a file."""

import os
from pathlib import Path

PROMPTS: dict[str, str] = {
    "assistant": (
        "You are a helpful assistant in a spoken conversation. Answer in one or two short, natural sentences, "
        "and ask when something is unclear."
    ),
    "focused": (
        "You answer exactly the question that was asked. Be brief and concrete, say so when you do not know, "
        "and do not change the subject."
    ),
    "customer-service": (
        "You work for the customer service of a small online shop. Greet the caller, find out what happened, "
        "stay calm and polite, and offer a clear next step."
    ),
    # The default sentence of NVIDIA's reference implementation.
    "teacher": ("You are a wise and friendly teacher. Answer questions or provide advice in a clear and engaging way."),
}

# One token takes one 80 ms frame of the context (3000 frames), so longer files cannot be a prompt.
MAX_FILE_BYTES = 64 * 1024


def resolve(prompt: str) -> str:
    """The text of a preset name, of `@file` (UTF-8, at most 64 KiB), or the text itself; "" is no prompt.

    Raises:
        ValueError: the file is missing, too long or not UTF-8 text.
    """
    if not isinstance(prompt, str):
        raise TypeError(f"[system_prompt] expected a preset name, text or @file, got {type(prompt).__name__}.")
    if prompt in PROMPTS:
        return PROMPTS[prompt]
    if prompt.startswith("@"):
        return _read(Path(os.path.expanduser(prompt[1:])))
    return prompt.strip()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"[system_prompt] cannot read {str(path)!r}: {error.strerror or error}.") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"[system_prompt] {str(path)!r} is longer than {MAX_FILE_BYTES} bytes; shorten the prompt.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"[system_prompt] {str(path)!r} is not UTF-8 text (byte {error.start}).") from None
    if "\0" in text:
        raise ValueError(f"[system_prompt] {str(path)!r} is not a text file (it contains a NUL character).")
    return text.strip()
