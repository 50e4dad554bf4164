"""Voices: names, presets, archives, recordings; a missing voice is an error that says what there is."""

import gzip
import io
import os
import tarfile

import fakes
import hypothesis.strategies as st
import numpy as np
import pt_files
import pytest
import soundfile
from hypothesis import given

from personaplex import _core, archive
from personaplex.audio import Audio
from personaplex.errors import WeightsError
from personaplex.voices import VOICES, Voice, VoiceLibrary, load_preset, random_voice

CORE = fakes.FakeModel()


def fitting(seed=0):
    tensors = pt_files.voice(seed=seed)
    return {"embeddings": tensors["embeddings"], "cache": tensors["cache"].astype(np.int64)}


def tar_gz(members, compress=True):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compress else "w") as tar:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return buffer.getvalue()


def library(tmp_path, **files):
    checkpoint = tmp_path / "model"
    checkpoint.mkdir(exist_ok=True)
    for name, data in files.items():
        (checkpoint / name.replace("__", "/").replace("_tgz", ".tgz")).write_bytes(data)
    return VoiceLibrary(checkpoint, tmp_path / "cache")


def test_the_eighteen_names():
    assert list(VOICES) == [
        *(f"{group}{n}" for group, count in (("NATF", 4), ("NATM", 4), ("VARF", 5), ("VARM", 5)) for n in range(count))
    ]
    assert len(VOICES) == 18


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("asked", ["NATM0", "NATM0.pt", "file"])
def test_presets_by_name_and_by_path(tmp_path, suffix, asked):
    folder = tmp_path / "model" / "voices"
    folder.mkdir(parents=True)
    path = folder / f"NATM0{suffix}"
    if suffix == ".pt":
        path.write_bytes(pt_files.save(pt_files.voice()))
    else:
        _core.write_tensors(str(path), fitting(), {})
    voices = VoiceLibrary(tmp_path / "model", tmp_path / "cache")
    voice = voices.resolve(path if asked == "file" else asked, CORE)
    np.testing.assert_array_equal(voice.embeddings, fitting()["embeddings"].reshape(5, 8))
    np.testing.assert_array_equal(voice.cache, fitting()["cache"][0])
    assert voice.codes is None
    assert voice.name == "NATM0"
    assert voices.names() == ["NATM0"]


def test_a_preset_survives_saving(tmp_path):
    _core.write_tensors(str(tmp_path / "a.safetensors"), fitting(), {})
    voice = load_preset(tmp_path / "a.safetensors", CORE.config)
    again = load_preset(voice.save(tmp_path / "b.safetensors"), CORE.config)
    assert again.digest == voice.digest
    assert _core.read_tensors(str(tmp_path / "b.safetensors"))["embeddings"].shape == (5, 1, 1, 8)
    with pytest.raises(ValueError, match="safetensors"):
        voice.save(tmp_path / "b.pt")
    with pytest.raises(ValueError, match="no preset"):
        Voice("none").save(tmp_path / "c.safetensors")


def test_none_is_no_voice(tmp_path):
    assert library(tmp_path).resolve("none", CORE) == Voice("none")


def test_a_missing_voice_lists_what_there_is(tmp_path):
    voices = library(tmp_path, voices_tgz=tar_gz([("voices/NATF1.pt", b"x"), ("voices/mine.pt", b"x")]))
    with pytest.raises(WeightsError, match=r"no voice NATM0; it has: NATF1, mine\."):
        voices.resolve("NATM0", CORE)
    with pytest.raises(ValueError, match=r"'NATX9' is neither a voice nor a file; .* NATF1, mine\."):
        voices.resolve("NATX9", CORE)
    with pytest.raises(WeightsError, match="it has: none"):
        VoiceLibrary(tmp_path, tmp_path / "cache").resolve("NATM0", CORE)


WRONG = {
    "no cache": ({"embeddings": np.zeros((5, 1, 1, 8), np.float32)}, "found embeddings"),
    "other width": (fitting() | {"embeddings": np.zeros((5, 1, 1, 16), np.float32)}, r"found \[5, 1, 1, 16\]"),
    "two channels": (fitting() | {"embeddings": np.zeros((5, 2, 1, 8), np.float32)}, r"found \[5, 2, 1, 8\]"),
    "no frames": (fitting() | {"embeddings": np.zeros((0, 1, 1, 8), np.float32)}, r"found \[0, 1, 1, 8\]"),
    "other ring": (fitting() | {"cache": np.zeros((1, 17, 5), np.int64)}, r"found \[1, 17, 5\]"),
    "nan": (fitting() | {"embeddings": np.full((5, 1, 1, 8), np.nan, np.float32)}, "NaN"),
    "large token": (fitting() | {"cache": np.full((1, 17, 4), 65, np.int64)}, "no tokens of this model"),
    "small token": (fitting() | {"cache": np.full((1, 17, 4), -2, np.int64)}, "no tokens of this model"),
    "half a token": (fitting() | {"cache": np.full((1, 17, 4), 0.5, np.float32)}, "no tokens of this model"),
}


@pytest.mark.parametrize("name", WRONG)
def test_presets_of_another_model_are_refused(tmp_path, name):
    tensors, message = WRONG[name]
    _core.write_tensors(str(tmp_path / "v.safetensors"), tensors, {})
    with pytest.raises(WeightsError, match=message):
        load_preset(tmp_path / "v.safetensors", CORE.config)


def test_float_caches_and_start_tokens_are_taken(tmp_path):
    cache = np.full((1, 17, 4), 64, np.float32)
    cache[0, 0] = 512
    _core.write_tensors(str(tmp_path / "v.safetensors"), fitting() | {"cache": cache}, {})
    voice = load_preset(tmp_path / "v.safetensors", CORE.config)
    assert voice.cache.dtype == np.int64
    assert voice.cache[0, 0] == 512


def test_a_damaged_preset_is_refused(tmp_path):
    for name in ("v.safetensors", "v.pt"):
        (tmp_path / name).write_bytes(b"\xff" * 64)
        with pytest.raises(WeightsError, match="v"):
            load_preset(tmp_path / name, CORE.config)


def test_the_digest_is_of_the_content():
    one, two = (Voice("a", codes=np.full((8, 3), n, np.int32)) for n in (1, 2))
    assert one.digest == Voice("b", codes=one.codes).digest != two.digest
    assert Voice("a", codes=np.zeros((8, 3), np.int32)).digest != Voice("a", codes=np.zeros((3, 8), np.int32)).digest


# Random models


def test_random_voices_differ_and_never_change():
    voices = VoiceLibrary(None, None)
    assert voices.names() == list(VOICES)
    codes = [voices.resolve(name, CORE).codes for name in VOICES]
    assert all(c.shape == (8, 25) and c.dtype == np.int32 and c.min() >= 0 and c.max() < 64 for c in codes)
    assert len({c.tobytes() for c in codes}) == 18
    assert random_voice("NATM0", CORE.config).codes[0, :6].tolist() == [54, 3, 22, 46, 52, 9]
    with pytest.raises(ValueError, match="neither a voice nor a file"):
        voices.resolve("nobody", CORE)


# Recordings


def speech(seconds=1.0, level=0.1):
    noise = np.random.default_rng(1).standard_normal(int(seconds * 24000))
    return (level * noise).astype(np.float32)


def test_a_recording_is_normalised_and_encoded(tmp_path):
    path = tmp_path / "me.wav"
    soundfile.write(path, speech(1.0), 24000, subtype="FLOAT")
    voices = VoiceLibrary(None, None)
    voice = voices.resolve(str(path), CORE)
    assert voice.codes.shape == (8, 13)
    assert voice.name == "me.wav"
    # Loudness is made equal, so a quieter recording of the same is the same voice.
    soundfile.write(path, speech(1.0, 0.01), 24000, subtype="FLOAT")
    np.testing.assert_array_equal(voices.resolve(path, CORE).codes, voice.codes)
    np.testing.assert_array_equal(voices.resolve((speech(), 24000), CORE).codes, voice.codes)
    np.testing.assert_array_equal(voices.resolve(Audio(speech()), CORE).codes, voice.codes)


def test_unusable_recordings_are_refused():
    voices = VoiceLibrary(None, None)
    for recording, message in (
        (speech(0.2), "at least 0.4 s"),
        (np.zeros(24000, np.float32), "silent"),
        (np.zeros(24000 * 241, np.float32), "240 s the most"),
    ):
        with pytest.raises(ValueError, match=message):
            voices.resolve((recording, 24000), CORE)


def test_a_model_makes_a_preset(tmp_path):
    core = fakes.FakeModel()
    voice = fakes.make_model(core).make_preset((speech(), 24000), "me")
    assert voice.embeddings.shape == (12, 8)
    assert core.closed == 1
    assert load_preset(voice.save(tmp_path / "me.safetensors"), core.config).digest == voice.digest


# voices.tgz


def test_the_archive_is_unpacked_once(tmp_path, monkeypatch):
    packed = tar_gz([("./voices/NATM0.pt", pt_files.save(pt_files.voice())), ("voices/._NATM0.pt", b"mac")])
    voices = library(tmp_path, voices_tgz=packed)
    assert voices.resolve("NATM0", CORE).embeddings.shape == (5, 8)
    monkeypatch.setattr(archive, "_unpack", None)
    assert voices.names() == ["NATM0"]
    assert [p.name for p in (tmp_path / "cache" / "voices").rglob("*.pt")] == ["NATM0.pt"]


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE = {
    "upwards": ([("voices/../../evil.pt", b"x")], "points outside"),
    "absolute": ([("/evil.pt", b"x")], "points outside"),
    "backslash": ([("voices\\..\\..\\evil.pt", b"x")], "points outside"),
    "drive": ([("C:evil.pt", b"x")], "points outside"),
    "symbolic link": ([(link("voices/a.pt", "/etc/passwd"), b"")], "is a link"),
    "hard link": ([(link("voices/a.pt", "voices/b.pt", tarfile.LNKTYPE), b"")], "is a link"),
    "link to a folder": ([(link("voices", "/tmp"), b""), ("voices/a.pt", b"x")], "is a link"),
    "device": ([(link("voices/a.pt", "", tarfile.CHRTYPE), b"")], "is a link or a device"),
    "pipe": ([(link("voices/a.pt", "", tarfile.FIFOTYPE), b"")], "is a link or a device"),
    "many members": ([(f"voices/{n}.txt", b"") for n in range(archive.MAX_MEMBERS + 1)], "more than"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_leave_nothing(tmp_path, name):
    members, message = HOSTILE[name]
    voices = library(tmp_path, voices_tgz=tar_gz(members))
    with pytest.raises(WeightsError, match=message):
        voices.names()
    assert_nothing_written(tmp_path)


def assert_nothing_written(tmp_path):
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    assert written <= {"model", "model/voices.tgz", "cache", "cache/voices"}


def test_a_bomb_is_refused_without_being_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 1 << 20)
    voices = library(tmp_path, voices_tgz=tar_gz([("voices/a.pt", bytes((1 << 20) + 1))]))
    with pytest.raises(WeightsError, match="at most 1048576"):
        voices.names()
    # A name record ("pax header") that claims 1 GB: tarfile would read it whole.
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 1 << 20)
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    (tmp_path / "model" / "voices.tgz").write_bytes(gzip.compress(header.tobuf() + bytes(2 << 20)))
    with pytest.raises(WeightsError, match=r"unpacks to more than|damaged"):
        voices.names()
    assert_nothing_written(tmp_path)


PACKED = tar_gz([("voices/NATM0.pt", bytes(range(256)) * 20), ("voices/NATF0.pt", b"abc")])


@given(st.integers(0, len(PACKED) - 9))
def test_a_truncated_archive_is_refused(tmp_path_factory, length):
    tmp_path = tmp_path_factory.mktemp("voices")
    with pytest.raises(WeightsError, match=r"damaged|refused"):
        library(tmp_path, voices_tgz=PACKED[:length]).names()
    assert_nothing_written(tmp_path)


@given(st.integers(0, 3 * 512 + 5120), st.integers(0, 255))
def test_a_changed_byte_never_escapes_the_cache(tmp_path_factory, position, value):
    plain = bytearray(tar_gz([("voices/NATM0.pt", bytes(range(256)) * 20), ("voices/NATF0.pt", b"abc")], False))
    plain[position] = value
    tmp_path = tmp_path_factory.mktemp("voices")
    try:
        library(tmp_path, voices_tgz=gzip.compress(bytes(plain))).names()
    except WeightsError:
        assert_nothing_written(tmp_path)
    inside = tmp_path / "cache" / "voices"
    for path in tmp_path.rglob("*"):
        assert path.name in ("model", "voices.tgz", "cache") or os.path.commonpath([path, inside]) == str(inside)


@given(st.text(alphabet="abv./\\\0:~-\u00e9oices", min_size=1, max_size=30))
def test_any_member_name_stays_inside(tmp_path_factory, name):
    tmp_path = tmp_path_factory.mktemp("voices")
    try:
        voices = library(tmp_path, voices_tgz=tar_gz([(f"voices/{name}.pt", b"x")])).names()
    except WeightsError:
        assert_nothing_written(tmp_path)
        return
    assert all("/" not in voice for voice in voices)
    assert all(p.parent.parent == tmp_path / "cache" / "voices" for p in (tmp_path / "cache").rglob("*.pt"))
