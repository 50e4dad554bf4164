"""PersonaPlex: full-duplex speech to speech. `personaplex.respond("question.wav").audio.write("answer.wav")`."""

from personaplex import interrupts

interrupts.quiet_while_importing()

from personaplex import _guard  # noqa: E402

_guard.check()  # before the extension: a clear error instead of a crash

from personaplex.api import load, respond  # noqa: E402
from personaplex.audio import FRAME, SAMPLE_RATE, Audio  # noqa: E402
from personaplex.errors import (  # noqa: E402
    CancelledError,
    DeviceError,
    HubError,
    PersonaplexError,
    StreamError,
    WeightsError,
)
from personaplex.generation import Generation  # noqa: E402
from personaplex.model import Model  # noqa: E402
from personaplex.prompts import PROMPTS  # noqa: E402
from personaplex.response import Response  # noqa: E402
from personaplex.session import Session, StepOutput  # noqa: E402
from personaplex.text import Word  # noqa: E402
from personaplex.version import __version__  # noqa: E402
from personaplex.voices import VOICES, Voice  # noqa: E402

__all__ = [
    "FRAME",
    "PROMPTS",
    "SAMPLE_RATE",
    "VOICES",
    "Audio",
    "CancelledError",
    "DeviceError",
    "Generation",
    "HubError",
    "Model",
    "PersonaplexError",
    "Response",
    "Session",
    "StepOutput",
    "StreamError",
    "Voice",
    "WeightsError",
    "Word",
    "__version__",
    "load",
    "respond",
]
