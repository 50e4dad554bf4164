"""Loudness normalisation (ITU-R BS.1770) of a voice to imitate.

pyloudnorm is what NVIDIA's reference uses, so its numbers are the model's training conditions. It brings scipy (about
35 MB), which is small beside MLX and a model of gigabytes, so it is a normal dependency, imported only here.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

TARGET_LUFS = -24.0
MIN_SECONDS = 0.4  # one gating block of the standard


def normalize(samples: NDArray[np.float32], sample_rate: int, target: float = TARGET_LUFS) -> NDArray[np.float32]:
    """[n] mono -> [n] at `target` LUFS.

    Raises:
        ValueError: shorter than 0.4 s, or silent.
    """
    import pyloudnorm

    if len(samples) < MIN_SECONDS * sample_rate:
        raise ValueError(
            f"[voice] expected at least {MIN_SECONDS} s of sound to imitate, got {len(samples) / sample_rate:.2f} s."
        )
    loudness = pyloudnorm.Meter(sample_rate).integrated_loudness(samples.astype(np.float64))
    if not np.isfinite(loudness):
        raise ValueError("[voice] the recording to imitate is silent; expected a voice.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "possible clipped samples": the encoder takes samples over full scale
        louder = pyloudnorm.normalize.loudness(samples, loudness, target)
    return np.asarray(louder, np.float32)
