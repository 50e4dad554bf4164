"""Tables that scripts write into the documentation, between two markers."""

import argparse
from collections.abc import Callable
from pathlib import Path


def insert(page: str, text: str, markers: tuple[str, str]) -> str:
    """The page with `text` between its markers; ValueError where they are missing."""
    before, begin, rest = page.partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not begin or not end:
        raise ValueError(f"the page has no {markers[0]} ... {markers[1]}")
    return f"{before}{begin}\n{text}{end}{after}"


def main(description: str | None, page: Path, markers: tuple[str, str], table: Callable[[], str]) -> int:
    """The command line of such a script."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="show the table, change nothing")
    options = parser.parse_args()
    if options.print:
        print(table(), end="")
    else:
        page.write_text(insert(page.read_text("utf-8"), table(), markers), "utf-8")
    return 0
