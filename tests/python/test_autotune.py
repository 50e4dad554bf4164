"""bench/kernels.py --autotune: what is tried, chosen, written and continued, on a GPU that is none."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from personaplex import _core

BENCH = Path(__file__).resolve().parents[2] / "bench"
TUNING = BENCH.parent / "kernels" / "tuning"
sys.path[:0] = [str(BENCH), str(BENCH.parent / "tools")]

import autotune  # noqa: E402
import kernels  # noqa: E402
import marked_table  # noqa: E402
import tuning_table  # noqa: E402


def tile(name: str, simdgroups: int = 8, split: int = 1, passes: int = 1) -> SimpleNamespace:
    return SimpleNamespace(tile=name, simdgroups=simdgroups, split=split, passes=passes)


TILES = [tile("r2_c1"), tile("r1_c1"), tile("r4_c1", 16, 4, 2), tile("r4_c1", 2)]


class Tuner:
    """A GPU on which times and errors of the tiles are known."""

    copies = 3
    us = (10.0, 40.0, 5.0, 1.0)
    off = (0.0, 1e-4, 1e-3, 0.5)  # the fastest is wrong
    asked = 0

    def __init__(self, case: _core.KernelCase) -> None:
        n, k = (int(part) for part in case.shape.split(" x "))
        self.job = {"op": case.op, "bits": case.bits, "n": n, "k": k, "columns": case.columns}
        self.tiles = TILES

    def time(self, tile: SimpleNamespace, repeats: int) -> list[float]:
        Tuner.asked += 1
        return [self.us[self.tiles.index(tile)]] * repeats

    def distance(self, tile: SimpleNamespace) -> float:
        return self.off[self.tiles.index(tile)]


class Bench:
    kind, device_name, family = "cuda", "NVIDIA H200", "hopper"
    compiled: list[int]

    def __init__(self, *_: str) -> None: ...

    def read_bandwidth(self, passes: int) -> dict[str, list[float]]:
        return {"read_memory_u4": [4000.0] * passes}

    def prepare(self, bits: list[int]) -> None:
        Bench.compiled = bits

    def tuner(self, case: _core.KernelCase) -> Tuner:
        return Tuner(case)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(_core, "GpuBench", Bench)
    monkeypatch.setattr(Tuner, "asked", 0)


def run(monkeypatch, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", ["kernels.py", "--autotune", *map(str, options)])
    return kernels.main()


def test_the_fastest_right_tile_is_written(gpu, monkeypatch, capsys, tmp_path):
    out = tmp_path / "here.json"
    assert run(monkeypatch, "--only", "depformer in_proj", "--bits", 4, 8, "--out", out) == 1  # one tile is wrong
    table = json.loads(out.read_text())
    assert (table["family"], table["device"]) == ("hopper", "NVIDIA H200")
    assert table["read_gb_per_s"] == 4000
    assert Bench.compiled == [4, 8]
    shape = {"n": 3072, "k": 1024, "columns": 1}
    how = {"tile": "r4_c1", "simdgroups": 16, "split": 4, "passes": 2}
    times = {"us": 5.0, "rule_us": 10.0, "worst_us": 40.0}
    assert table["jobs"] == [{"op": "project_qkv", "bits": bits, **shape, **how, **times} for bits in (4, 8)]
    assert _core.check_tuning(out.read_text(), "here") == 2
    printed = capsys.readouterr()
    assert "r4_c1 16 4 2" in printed.out
    assert "PERSONAPLEX_TUNING" in printed.out
    assert "wrong: project_qkv depformer in_proj 3072 x 1024, 4 bits: r4_c1 2 1 1: off by 5.0e-01" in printed.err


def test_what_was_interrupted_goes_on(gpu, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(Tuner, "off", (0.0, 0.0, 0.0, 0.0))
    out, limit = tmp_path / "here.json", 5
    only = ["--only", "depformer out_proj", "--out", out]

    def stop(self, _tile):
        if Tuner.asked > limit:
            raise KeyboardInterrupt
        return 0.0

    with monkeypatch.context() as broken:
        broken.setattr(Tuner, "distance", stop)
        assert run(monkeypatch, *only) == 130
    assert f"goes on from {out}" in capsys.readouterr().err
    first = json.loads(out.read_text())["jobs"]
    assert len(first) == 1
    assert run(monkeypatch, *only) == 0
    jobs = json.loads(out.read_text())["jobs"]
    assert jobs[:1] == first
    assert [job["bits"] for job in jobs] == [4, 8, 16]
    asked = Tuner.asked
    assert run(monkeypatch, *only) == 0
    assert Tuner.asked == asked  # there was nothing left
    assert run(monkeypatch, *only, "--again") == 0
    assert Tuner.asked > asked
    assert list(tmp_path.iterdir()) == [out]


def test_a_table_of_another_gpu_is_left_alone(gpu, monkeypatch, capsys, tmp_path):
    out = tmp_path / "here.json"
    monkeypatch.setattr(Tuner, "off", (0.0, 0.0, 0.0, 0.0))
    assert run(monkeypatch, "--only", "depformer head", "--out", out) == 0
    before = out.read_text()
    monkeypatch.setattr(Bench, "device_name", "NVIDIA H100")
    assert run(monkeypatch, "--only", "depformer head", "--out", out) == 2
    assert "is the table of NVIDIA H200, not of NVIDIA H100" in capsys.readouterr().err
    out.write_text("{}")
    assert run(monkeypatch, "--only", "depformer head", "--out", out) == 2
    assert "jobs: expected a list of objects" in capsys.readouterr().err
    out.write_text(before)


def test_single_operations_are_timed_on_a_gpu(gpu, monkeypatch, capsys):
    monkeypatch.setattr(Tuner, "time", lambda self, tile, repeats: [2.0] * repeats if tile is None else [])
    options = ["--device", "cuda", "--only", "depformer out_proj", "--repeats", "3", "--json"]
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options])
    assert kernels.main() == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["us"], line["bandwidth_gb_per_s"], line["instruction_set"]) == (2.0, 4000.0, "")
    assert line["machine"]["device_name"] == "NVIDIA H200"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--autotune", "--only", "nothing"], "no case has 'nothing'"),
        (["--autotune", "--device", "cpu"], "chooses the tiles of a GPU"),
        (["--autotune", "--columns", "33"], "1 to 32 columns"),
        (["--autotune", "--out", "nowhere/table.json"], "there is no folder 'nowhere' for --out"),
        (["--autotune", "--repeats", "0"], "--repeats must be 1 or more, not 0"),
        (["--bits", "4", "8"], "several --bits or --columns go with --autotune"),
        (["--out", "x.json"], "--out and --again go with --autotune"),
        (["--device", "cuda", "--threads", "2"], "--threads and --instruction-set are the processor's"),
    ],
)
def test_refuses_in_one_line(gpu, options, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options])
    assert kernels.main() == 2
    err = capsys.readouterr().err
    assert err.startswith("kernels: error: ")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_every_size_is_tried_once_and_whatever_has_choices():
    cases = autotune.cases([4, 8, 16], [1, 8], "")
    names = {case.op for case in cases}
    assert names == {"project", "project_qkv", "attend_project", "attend", "linear", "conv", "conv_transpose"}
    keys = [(case.op, case.bits, case.columns, case.shape) for case in cases]
    assert len(set(keys)) == len(keys)
    assert {case.shape for case in cases if case.op == "attend"} == {
        "32 x 128, 250 positions",
        "32 x 128, 3000 positions",
    }


@pytest.mark.parametrize("path", sorted(TUNING.glob("*.json")), ids=lambda path: path.stem)
def test_committed_tables_are_read_and_say_where_they_come_from(path):
    text = path.read_text("utf-8")
    table = json.loads(text)
    assert _core.check_tuning(text, path.name) == len(table["jobs"]) > 0
    assert table["family"] == path.stem
    if path.stem == "apple":
        assert "nobody has measured" in table["made"]
    else:
        assert table["device"]
        assert all(job["us"] <= job["rule_us"] <= job["worst_us"] * 1.2 for job in table["jobs"])


def test_the_page_shows_the_table():
    page = tuning_table.PAGE.read_text("utf-8")
    text = tuning_table.table(json.loads(tuning_table.TABLE.read_text("utf-8")))
    assert marked_table.insert(page, text, tuning_table.MARKERS) == page, "run tools/tuning_table.py"
    with pytest.raises(ValueError, match="has no <!-- tuning"):
        marked_table.insert("nothing", text, tuning_table.MARKERS)


def test_a_gpu_that_is_not_there_is_said_so():
    if any(found for name, found in _core.devices().items() if name != "cpu"):
        pytest.skip("there is one")
    with pytest.raises(_core.DeviceError, match="expected a GPU"):
        _core.GpuBench()
    with pytest.raises(_core.DeviceError, match="not available"):
        _core.GpuBench("cuda")
    with pytest.raises(ValueError, match="expected device auto"):
        _core.GpuBench("abacus")
