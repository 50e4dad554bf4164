"""What can go wrong: with the tools, with a kernel's text, and while a kernel runs."""

import re


class ToolError(RuntimeError):
    """A compiler or another program that metalsim needs is missing or failed."""


class CompileError(Exception):
    """The kernel text is wrong. The message is the compiler's."""


class Fault(Exception):  # noqa: N818
    """A kernel did what it must not.

    kernel: its host_name. source: "file.metal:12", or "" where no line is known. what: what happened.
    The message has all three, and which thread it was.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        parts = re.match(r"(\w+): (?:(\S+:\d+): )?(.*)", text)
        self.kernel, self.source, self.what = (parts[1], parts[2] or "", parts[3]) if parts else ("", "", text)
