"""Memory that kernels reach through pointers: numpy arrays whose addresses stand in other arrays."""

from __future__ import annotations

import ctypes
import functools
import weakref
from typing import TYPE_CHECKING

from .build import runtime

if TYPE_CHECKING:
    import numpy as np


@functools.cache
def lib() -> ctypes.CDLL:
    """The runtime, loaded."""
    loaded = ctypes.CDLL(str(runtime()))
    for name in ("register", "unregister", "load", "names", "launch"):
        getattr(loaded, f"metalsim_{name}").restype = ctypes.c_char_p
    loaded.metalsim_ranges.restype = ctypes.POINTER(ctypes.c_size_t)
    loaded.metalsim_bytes_to_end.restype = ctypes.c_size_t
    loaded.metalsim_bytes_to_end.argtypes = [ctypes.c_void_p]
    return loaded


def _unregister(address: int) -> None:
    lib().metalsim_unregister(ctypes.c_void_p(address))


def _owner(array: np.ndarray) -> np.ndarray:
    import numpy as np

    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def address(array: np.ndarray) -> int:
    """The array's address, to be put into a table of pointers. Kernels may follow it as long as the array lives.

    ValueError when the array is not C-contiguous, is empty, or overlaps memory registered before without lying in it.
    """
    if not array.flags.c_contiguous or not array.nbytes:
        raise ValueError("[metalsim.address] expected a C-contiguous array that is not empty.")
    at: int = array.ctypes.data
    if lib().metalsim_bytes_to_end(at) < array.nbytes:
        wrong = lib().metalsim_register(
            ctypes.c_void_p(at), ctypes.c_size_t(array.nbytes), int(not array.flags.writeable)
        )
        if wrong:
            raise ValueError(wrong.decode())
        weakref.finalize(_owner(array), _unregister, at).atexit = False
    return at
