"""Audio in: any rate, type and channel count becomes frames at 24 kHz; what cannot is refused by name."""

import io
import logging
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile
from hypothesis import given

from personaplex import loudness
from personaplex.audio import FRAME, SAMPLE_RATE, Audio, AudioSource, level_dbfs, split_frames


def tone(seconds=1.0, rate=SAMPLE_RATE, frequency=440.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def frames(source, rate=None):
    return np.stack(list(AudioSource(source, rate).frames()))


@given(st.integers(1, 9000))
def test_frames_hold_every_sample_then_zeros(length):
    samples = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
    source = AudioSource(samples, SAMPLE_RATE)
    got = np.stack(list(source.frames()))
    assert got.shape == (-(-length // FRAME), FRAME) == (source.frame_count, FRAME)
    np.testing.assert_array_equal(got.reshape(-1)[:length], samples)
    assert not got.reshape(-1)[length:].any()
    np.testing.assert_array_equal(split_frames(samples), got)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_tone_survives_any_rate_and_channel_count(tmp_path, rate, channels):
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.tile(tone(rate=rate)[:, None], channels), rate, subtype="FLOAT")
    got = AudioSource(path).read()
    assert abs(len(got) - SAMPLE_RATE) <= 1
    inner = slice(2400, 21600)
    np.testing.assert_allclose(got[inner], tone()[: len(got)][inner], atol=2e-3)


def test_channels_are_averaged():
    stereo = np.stack([np.full(FRAME, 0.5), np.full(FRAME, -0.25)], axis=1)
    np.testing.assert_allclose(frames(stereo, SAMPLE_RATE), 0.125)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.float16, np.float64])
def test_every_sample_type_has_the_same_full_scale(dtype):
    wave = tone(0.08)
    if np.dtype(dtype).kind == "f":
        array = wave.astype(dtype)
    elif dtype == np.uint8:
        array = np.round(wave * 128 + 128).astype(dtype)
    else:
        array = np.round(wave * -float(np.iinfo(dtype).min)).astype(dtype)
    tolerance = {np.uint8: 5e-3, np.float16: 1e-3}.get(dtype, 2e-5)
    np.testing.assert_allclose(frames(array, SAMPLE_RATE)[0], wave, atol=tolerance)


def test_path_file_object_array_tuple_and_audio_are_the_same(tmp_path):
    wave = tone(0.5, 16000)
    path = tmp_path / "a.flac"
    soundfile.write(path, wave, 16000)
    wave = soundfile.read(path, dtype="float32")[0]
    expected = frames(path)
    for source in (str(path), io.BytesIO(path.read_bytes()), (wave, 16000), Audio(wave, 16000)):
        np.testing.assert_array_equal(frames(source), expected)
    np.testing.assert_array_equal(frames(wave, 16000), expected)


@pytest.mark.parametrize("rate", [1000, 8000, SAMPLE_RATE, 96000, 768000])
def test_one_sample_is_one_frame(rate):
    assert frames(np.float32([0.5]), rate).shape == (1, FRAME)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_first_bad_sample_is_named(tmp_path, bad, channels):
    samples = np.zeros((100000, channels), np.float32)
    samples[70001:, channels - 1] = bad
    with pytest.raises(ValueError, match=r"sample 70001( of .*)? is"):
        AudioSource(samples, 48000)
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, 48000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"sample 70001( of .*)? is"):
        AudioSource(path)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros((0, 2), np.int16), []])
def test_empty_is_refused(samples):
    with pytest.raises(ValueError, match="empty"):
        AudioSource(samples, SAMPLE_RATE)


def test_empty_file_is_refused(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), SAMPLE_RATE)
    with pytest.raises(ValueError, match="empty"):
        AudioSource(tmp_path / "empty.wav")


@pytest.mark.parametrize(
    ("source", "rate", "message"),
    [
        (np.zeros(5), None, "needs its rate"),
        (np.zeros(5), 0, "sample rate"),
        (np.zeros(5), 24000.5, "sample rate"),
        (np.zeros(5), True, "sample rate"),
        (np.zeros(5, np.int64), 24000, "int64"),
        (np.zeros(5, complex), 24000, "complex"),
        (np.zeros(5, bool), 24000, "bool"),
        (np.zeros((2, 48000)), 24000, "transpose"),
        (np.zeros((2, 2, 2)), 24000, "shape"),
        (np.float32(1), 24000, "shape"),
        ("x.wav", 24000, "goes with an array"),
    ],
)
def test_unusable_arrays_are_refused(source, rate, message):
    with pytest.raises(ValueError, match=message):
        AudioSource(source, rate)


def test_missing_folder_and_text_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        AudioSource(tmp_path / "none.wav")
    with pytest.raises(ValueError, match="folder"):
        AudioSource(tmp_path)
    (tmp_path / "notes.wav").write_text("not audio")
    with pytest.raises(ValueError, match=r"not an audio file"):
        AudioSource(tmp_path / "notes.wav")
    with pytest.raises(ValueError, match=r"not an audio file"):
        AudioSource(io.BytesIO(b"not audio"))


def test_loud_input_is_kept_and_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        got = frames(tone(0.08, amplitude=1.5), SAMPLE_RATE)
    assert got.max() > 1.4
    assert "louder than full scale" in caplog.text


@pytest.mark.slow
def test_an_hour_streams_in_little_memory(tmp_path):
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(60):
            file.write(tone(60, 8000, 200))
    source = AudioSource(path)
    assert source.duration == 3600
    tracemalloc.start()
    count = sum(1 for _ in source.frames())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == source.frame_count == 45000
    assert peak < 8 << 20


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".WAV", ".aiff"])
def test_write_picks_the_format_by_suffix(tmp_path, suffix):
    path = Audio(tone()).write(tmp_path / f"out{suffix}")
    info = soundfile.info(path)
    assert (info.samplerate, info.channels) == (SAMPLE_RATE, 1)
    assert info.frames == SAMPLE_RATE
    assert info.format == suffix[1:].upper()


def test_write_refuses_an_unknown_suffix(tmp_path):
    for name in ("out.docx", "out", "out.raw"):
        with pytest.raises(ValueError, match="no audio suffix"):
            Audio(tone()).write(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_audio_plays_in_a_notebook_and_is_an_array():
    audio = Audio(tone())
    assert audio._repr_html_().startswith('<audio controls src="data:audio/wav;base64,UklGR')
    np.testing.assert_array_equal(np.asarray(audio), audio.samples)
    assert np.asarray(audio, dtype=np.float64).dtype == np.float64
    assert (audio.duration, len(audio)) == (1.0, SAMPLE_RATE)
    got, rate = soundfile.read(io.BytesIO(audio.wav_bytes()))
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(got, audio.samples, atol=1e-4)


def test_level_of_known_signals():
    assert level_dbfs(np.full(100, 0.1, np.float32)) == pytest.approx(-20)
    assert level_dbfs(np.zeros(100, np.float32)) == float("-inf")


def test_loudness_of_the_standards_reference_tone():
    # BS.1770: a full-scale 997 Hz sine in one channel measures -3.01 LKFS.
    wave = tone(5, SAMPLE_RATE, 997.0, 1.0)
    normal = loudness.normalize(wave, SAMPLE_RATE)
    assert 20 * np.log10(np.abs(normal).max()) == pytest.approx(-24 + 3.01, abs=0.1)


def test_loudness_refuses_short_and_silent_voices():
    with pytest.raises(ValueError, match=r"at least 0\.4 s"):
        loudness.normalize(tone(0.3), SAMPLE_RATE)
    with pytest.raises(ValueError, match="silent"):
        loudness.normalize(np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
