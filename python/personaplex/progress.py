"""What the command line shows while one waits: only on a terminal, never in a log or a pipe."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

_AFTER_SECONDS = 2.0  # what is over sooner needs no bar


def announce(message: str) -> None:
    """A line on stderr, when it is a terminal."""
    if sys.stderr.isatty():
        print(f"personaplex: {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, to be called with (done, in all); None when stderr is no terminal.

    It appears two seconds after the first call, and goes when all is done or the block ends.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    started: float | None = None
    bar: Any = None

    def update(done: int, total: int) -> None:
        nonlocal bar, started
        if started is None:
            started = time.monotonic()
        if bar is None and done < total and time.monotonic() - started >= _AFTER_SECONDS:
            bar = tqdm(desc=title, total=total, unit=unit, initial=done - 1, leave=False, file=sys.stderr)
        if bar is not None:
            bar.total = total
            bar.update(done - bar.n)
            if done >= total:
                bar.close()
                bar = None

    try:
        yield update
    finally:
        if bar is not None:
            bar.close()
