"""bench/step_latency.py and bench/kernels.py: what they count, print and draw; what they refuse before any work."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from personaplex import _core

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import frames  # noqa: E402
import kernels  # noqa: E402
import saved  # noqa: E402
import step_latency  # noqa: E402

PARTS = ("mimi_encode", "temporal", "depformer", "mimi_decode")


def bench(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "step_latency.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(JSON, picture) of one run with everything in it."""
    picture = tmp_path_factory.mktemp("bench") / "frame.png"
    done = bench(
        *("--random", "tiny", "--device", "cpu", "--context", 30, "--rounds", 3, "--frames", 4, "--compare", "graph"),
        *("--json", "--plot", picture),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), picture


def test_every_part_has_times_bytes_and_a_rate(measured):
    result, _ = measured
    assert set(result["parts"]) == {*PARTS, "total"}
    for part in result["parts"].values():
        assert 0 < part["p50_ms"] <= part["p95_ms"] <= part["p99_ms"]
        assert part["gb_per_s"] == pytest.approx(part["bytes"] / part["p50_ms"] / 1e6, rel=0.01, abs=0.006)
    assert result["parts"]["total"]["bytes"] == pytest.approx(sum(result["parts"][p]["bytes"] for p in PARTS), abs=4)
    assert (result["context"], result["rounds"], result["frames"]) == (30, 3, 12)


def test_the_floor_is_bytes_over_bandwidth(measured):
    result, _ = measured
    assert result["bandwidth_gb_per_s"] > 0
    floor = result["parts"]["total"]["bytes"] / result["bandwidth_gb_per_s"] / 1e6
    assert result["floor_ms"] == pytest.approx(floor, abs=0.01)
    # Rounds' medians against the median of all frames: on a busy machine far apart, but a wrong unit is farther.
    # Tiny weights stay in caches, so there is no bound at 1.
    total, lm = result["parts"]["total"], [result["parts"][part] for part in ("temporal", "depformer")]
    assert 0.25 < result["floor_ratio"] / (total["p50_ms"] / floor) < 4
    rate = sum(part["bytes"] for part in lm) / sum(part["p50_ms"] for part in lm) / 1e6
    assert 0.25 < result["fraction_of_bandwidth"] / (rate / result["bandwidth_gb_per_s"]) < 4
    assert 0.25 < result["real_time_factor"] / (total["p50_ms"] / 80) < 4
    assert 0.02 < result["peak_rss_gb"] < 2


def test_a_comparison_names_its_dtype_and_its_ratio(measured):
    compare = measured[0]["compare"]
    assert compare["dtype"] == min(compare["depformer_ms"], key=compare["depformer_ms"].get)
    assert set(compare["depformer_ms"]) == {"float32", "bfloat16"}
    # Times are written to the microsecond: a tiny model's frame takes few hundred of them.
    assert compare["ratio"] == pytest.approx(compare["p50_ms"] / compare["ours_p50_ms"], rel=0.01)
    assert (compare["how"], compare["context"]) == ("in turns", 30)


def test_a_result_says_where_it_comes_from(measured):
    result, _ = measured
    assert result["model"] == "random:tiny"
    assert result["machine"]["cores"] >= 1
    assert result["machine"]["processor"]
    assert result["versions"]["mlx"] == _core.MLX_VERSION
    assert result["versions"]["personaplex"][0].isdigit()
    assert "unknown" not in result["versions"]["personaplex"]
    assert len(result["date"]) == 10
    if result["engine"] == "fused":
        assert result["dispatches"] > 50
        assert result["threads"] >= 1
        assert result["instruction_set"]
    else:
        assert (result["dispatches"], result["threads"]) == (None, None)


def test_every_key_is_documented(measured):
    text = (BENCH.parent / "docs" / "performance.md").read_text("utf-8")
    table = text.split("## The keys of a result")[1].split("\n## ")[0]
    result, _ = measured
    inner = [result["compare"], result["machine"], result["versions"], result["parts"], result["parts"]["total"]]
    for key in {key for keys in (result, *inner) for key in keys}:
        assert f"`{key}`" in table, key


def test_the_picture_is_drawn(measured):
    assert measured[1].read_bytes().startswith(b"\x89PNG")


def test_the_table_is_for_people(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(saved, "RESULTS", tmp_path)
    options = ["--random", "tiny", "--device", "cpu", "--context", "0", "--rounds", "1", "--frames", "2", "--paced"]
    monkeypatch.setattr(sys, "argv", ["step_latency.py", *options, "--save", "here"])
    assert step_latency.main() == 0
    assert step_latency.main() == 0
    out = capsys.readouterr().out
    for words in ("Mimi encode", "temporal", "depformer", "Mimi decode", "whole frame", "GB/s", "real-time factor"):
        assert words in out
    kept = [json.loads(line) for line in (tmp_path / "here.jsonl").read_text().splitlines()]
    assert [(one["paced"], one["frames"], one["compare"]) for one in kept] == [(True, 2, None)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "--rounds must be 1 or more, not 0"),
        (["--context", "-1"], "--context must be 0 or more, not -1"),
        (["--threads", "0"], "--threads must be 1 or more, not 0"),
        (["--save", "../x"], "--save takes a name"),
        (["--plot", "frame.txt"], "--plot writes .png, .svg or .pdf, not 'frame.txt'"),
        (["--plot", "nowhere/frame.png"], "there is no folder 'nowhere'"),
        (["--random", "tiny", "--context", "4000"], "this model remembers"),
        (["--model", "no-such-model"], "neither a directory nor a model id"),
        (["--engine", "graph", "--kv-bits", "8"], "kv_bits=8 is an option of the fused engine"),
    ],
)
def test_what_does_not_fit_is_one_line(options, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["step_latency.py", *options])
    assert step_latency.main() in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("step_latency: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_bytes_grow_with_what_is_seen_up_to_the_window(tiny_model):
    counted, config = tiny_model.info["frame_bytes"], tiny_model._core.config

    def of(position: int, heard: int) -> dict[str, int]:
        frame = frames.Frame(position, heard, 1.0, 1.0, 1.0, 1.0, 4.0)
        return frames.frame_bytes(tiny_model, [frame])

    assert of(10, 0)["temporal"] == counted["temporal"] + 11 * counted["temporal_kv"]
    window = config["context"] - 1
    assert of(10**6, 0)["temporal"] == counted["temporal"] + window * counted["temporal_kv"]
    assert of(0, 3)["mimi_encode"] == counted["mimi_encode"] + 8 * counted["mimi_kv"]
    assert of(0, 10**6)["mimi_decode"] == counted["mimi_decode"] + config["mimi_context"] * counted["mimi_kv"]


def test_whole_times_come_from_frames_that_nothing_slowed():
    split = frames.Frame(0, 0, 1.0, 2.0, 3.0, 4.0, 12.0)
    whole = frames.Frame(1, 1, None, None, None, None, 10.0)
    assert frames.times([split, whole], "total") == [10.0]
    assert frames.times([split], "total") == [12.0]
    assert frames.times([split, whole], "temporal") == [2.0]
    assert frames.language_model([split, whole]) == [5.0]


def test_the_best_loop_is_the_one_with_the_best_median_of_medians():
    rounds = [frames.Round([], {"a": [1, 9, 9], "b": [5, 5, 5]}), frames.Round([], {"a": [2, 2, 9], "b": [5, 5, 5]})]
    assert frames.best_loop(rounds) == ("a", [9, 2])
    rounds[0].bandwidth["a"] = [1, 1, 1]
    assert frames.best_loop(rounds) == ("b", [5, 5])
    assert frames.best_loop([frames.Round([])]) is None


def test_reading_loops_read_what_they_say():
    speeds = _core.read_bandwidth(threads=1, megabytes=64, passes=2)
    assert "words" in speeds
    assert all(len(passes) == 2 and 0.05 < statistics.median(passes) < 5000 for passes in speeds.values())
    with pytest.raises(ValueError, match="megabytes from 1 to 1048576 and passes of 1 or more"):
        _core.read_bandwidth(megabytes=0)
    with pytest.raises(ValueError, match="megabytes from 1 to 16384"):
        _core.read_gpu_bandwidth(megabytes=0)


# bench/kernels.py


def test_the_cases_of_a_frame_read_what_a_frame_reads():
    """The documented bytes of PersonaPlex-7B: 3.70 GB of temporal layers and 0.40 GB of depformer at 4 bits."""
    cases = _core.frame_cases(bits=4, kv_bits=16, context=1000)
    total: dict[str, int] = {}
    for case in cases:
        part = case.name.split()[0] if case.op in ("project", "project_qkv") else case.op
        total[part] = total.get(part, 0) + case.per_frame * case.bytes
    assert total["temporal"] == pytest.approx(3.70e9, rel=0.005)
    assert total["text"] == 2 * 32000 * 4096
    assert total["depformer"] == pytest.approx(0.40e9, rel=0.02)
    ring = [case for case in cases if case.name == "temporal attention"]
    assert [case.per_frame * case.bytes for case in ring] == [1000 * 2 * 32 * 4096 * 2]


def test_kernels_are_timed_one_a_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(saved, "RESULTS", tmp_path)
    options = ["--ragged", "--only", "conv", "--repeats", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options, "--json", "--save", "here"])
    assert kernels.main() == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [json.loads(line) for line in (tmp_path / "kernels" / "here.jsonl").read_text().splitlines()] == lines
    assert {line["op"] for line in lines} == {"conv", "conv_transpose"}
    for line in lines:
        assert line["us"] > 0
        assert line["gb_per_s"] == pytest.approx(line["bytes"] / line["us"] / 1e3, rel=0.1, abs=0.01)
        assert line["bandwidth_gb_per_s"] > 0
        assert line["machine"]["processor"]
        assert line["threads"] == 1
        assert {"commit", "date", "instruction_set"} <= set(line)
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options[:3], "--repeats", "1", "--instruction-set", "portable"])
    assert kernels.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "nothing"], "no case has 'nothing'"),
        (["--instruction-set", "abacus", "--ragged"], "expected an instruction set of this machine (portable"),
        (["--columns", "33"], "1 to 32 columns, got 4, 16, 250 and 33"),
        (["--repeats", "0", "--ragged"], "--repeats must be 1 or more, not 0"),
        (["--save", "a/b"], "--save takes a name"),
    ],
)
def test_kernels_refuse_in_one_line(options, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options])
    assert kernels.main() == 2
    err = capsys.readouterr().err
    assert err.startswith("kernels: error: ")
    assert message in err
