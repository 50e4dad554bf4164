"""What the commands share: wrong usage as an error, checks of inputs, options of load()."""

import argparse
from collections.abc import Callable
from typing import Any


class UsageError(Exception):
    """Options that do not fit together or name things that are not there."""


def check_input(check: Callable[[], object]) -> None:
    """Runs a check of an input file; what the operating system refuses is usage too."""
    try:
        check()
    except OSError as error:
        raise UsageError(one_line(error)) from None


def model_options(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of load() among the options."""
    names = (
        "device engine dtype bits temporal_bits depformer_bits head_bits embedding_bits group_size depformer_steps "
        "context kv_bits threads compile revision prompt_cache"
    )
    return {name: getattr(options, name) for name in names.split() if hasattr(options, name)}


def one_line(error: BaseException) -> str:
    """The message of an error, for a line of its own."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename!r}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
