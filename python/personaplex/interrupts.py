"""Ctrl-C and SIGTERM in the command: a line on stderr at once, then KeyboardInterrupt; while importing, a quiet end."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def quiet_while_importing() -> None:
    """Called first of all at import: where this process is the command, Ctrl-C ends it without a traceback."""
    is_command = os.path.basename(sys.argv[0]) == "personaplex" if sys.argv else False
    is_module = sys.argv[:1] == ["-m"] and "personaplex" in sys.orig_argv
    in_main_thread = threading.current_thread() is threading.main_thread()
    if (is_command or is_module) and in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


class Interrupts:
    """Turns both signals into KeyboardInterrupt within a `with` block, and tells the user at once.

    Python runs its handlers only after the native call in progress, and a step can take seconds; so the line comes from
    a thread that the interpreter wakes the moment a signal arrives. A signal that the parent has told us to ignore
    (nohup) stays ignored. Does nothing outside the main thread.

    Attributes:
        note: the line to print.
        received: the first signal that came, or 0.
    """

    def __init__(self) -> None:
        self.note = "stopping"
        self.received = 0
        self._told = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is not threading.main_thread():
            return self
        import socket  # not before the import is quiet

        taken = [each for each in _SIGNALS if signal.getsignal(each) != signal.SIG_IGN]
        self._before = {each: signal.signal(each, self._interrupt) for each in taken}
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, args=(frozenset(taken),), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._before:
            return
        signal.set_wakeup_fd(self._wakeup_before)
        for each, handler in self._before.items():
            restored = signal.default_int_handler if handler is _leave else handler
            signal.signal(each, restored)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    def _watch(self, signals: frozenset[int]) -> None:
        while numbers := self._reader.recv(16):
            for number in numbers:
                if number in signals and not self._told.is_set():
                    start = "\n" if sys.stderr.isatty() else ""  # after the ^C that the terminal shows
                    print(f"{start}personaplex: {self.note}", file=sys.stderr, flush=True)
                    self._told.set()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        self._told.wait(1.0)  # so that the line comes before all others
        raise KeyboardInterrupt
