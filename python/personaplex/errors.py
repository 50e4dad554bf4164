"""The typed errors of the library; bad arguments are plain ValueError or TypeError."""

from personaplex._core import CancelledError, DeviceError, PersonaplexError, StreamError, WeightsError

__all__ = ["CancelledError", "DeviceError", "HubError", "PersonaplexError", "StreamError", "WeightsError"]


class HubError(PersonaplexError):
    """A model could not be found or downloaded; the message names the next step."""
