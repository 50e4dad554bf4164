"""Progressive audio: the file on disk is valid after every frame, a pipe plays without a known length."""

import io
import struct

import numpy as np
import pytest
import soundfile

from personaplex.wav_stream import WavStream, to_pcm16, wav_header

FRAMES = np.random.default_rng(0).uniform(-1, 1, (5, 1920)).astype(np.float32)


def test_a_file_is_valid_after_every_frame(tmp_path):
    path = tmp_path / "out.wav"
    with WavStream(path) as stream:
        assert soundfile.info(path).frames == 0
        for count, frame in enumerate(FRAMES, 1):
            stream.write(frame)
            got, rate = soundfile.read(path, dtype="float32")
            assert rate == 24000
            assert len(got) == 1920 * count
            np.testing.assert_allclose(got, FRAMES[:count].reshape(-1), atol=1e-4)
    assert path.stat().st_size == 44 + 2 * FRAMES.size


def test_two_channels(tmp_path):
    with WavStream(tmp_path / "out.wav", channels=2) as stream:
        stream.write(np.stack([FRAMES[0], FRAMES[1]], axis=1))
        with pytest.raises(ValueError, match="expected 2 channels"):
            stream.write(FRAMES[0])
    got, _ = soundfile.read(tmp_path / "out.wav")
    np.testing.assert_allclose(got, FRAMES[:2].T, atol=1e-4)


def test_a_pipe_gets_a_header_of_unknown_length():
    pipe = io.BytesIO()
    with WavStream(pipe) as stream:
        for frame in FRAMES:
            stream.write(frame)
    data = pipe.getvalue()
    assert struct.unpack_from("<I", data, 4) == struct.unpack_from("<I", data, 40) == (0xFFFFFFFF,)
    assert data[44:] == to_pcm16(FRAMES.reshape(-1))
    got, _ = soundfile.read(io.BytesIO(data))  # libsndfile takes such a length as "to the end"
    assert len(got) == FRAMES.size


def test_raw_is_samples_and_nothing_else():
    pipe = io.BytesIO()
    with WavStream(pipe, "raw") as stream:
        stream.write(FRAMES[0])
    np.testing.assert_allclose(np.frombuffer(pipe.getvalue(), "<i2") / 32767, FRAMES[0], atol=1e-4)


def test_samples_are_clipped():
    assert np.frombuffer(to_pcm16(np.float32([2, -2, 1, -1, 0])), "<i2").tolist() == [32767, -32767, 32767, -32767, 0]


def test_a_header_too_long_for_wav_is_of_unknown_length():
    assert wav_header(5 << 30) == wav_header(None)
    assert wav_header(0) != wav_header(None)


def test_unknown_formats_are_refused():
    with pytest.raises(ValueError, match="wav or raw"):
        WavStream(io.BytesIO(), "mp3")
