"""Where results are kept: bench/results, a file for every name and an object a line."""

import json
import re
from collections.abc import Iterable
from typing import Any

import machine

RESULTS = machine.ROOT / "bench" / "results"


def check(name: str | None) -> None:
    """ValueError for what --save does not take; None is not saved."""
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"--save takes a name of letters, digits, dots and dashes, not {name!r}")


def append(name: str, results: Iterable[dict[str, Any]]) -> None:
    """Adds lines to bench/results/NAME.jsonl; NAME may begin with a folder and a slash."""
    path = RESULTS / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(result) + "\n" for result in results)
