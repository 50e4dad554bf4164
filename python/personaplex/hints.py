"""What a mistyped name may have meant."""

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that `word` looks like, whatever the case; None when it looks like none."""
    by_lower = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """ " (did you mean NATM0?)" for a message, or nothing."""
    name = nearest(word, names)
    return "" if name is None else f" (did you mean {name}?)"
