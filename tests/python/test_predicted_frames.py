"""docs/performance.md predicts frames on Macs from what bench/results counts, by the formula that it states."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import marked_table  # noqa: E402
import performance_table  # noqa: E402
import predicted_frames  # noqa: E402


def result(**other: object) -> dict[str, object]:
    return {
        "model": "random:7b",
        "device": "cuda",
        "engine": "fused",
        "kv_dtype": "bfloat16",
        "bits": {"temporal": 4},
        "context": 250,
        "parts": {"total": {"bytes": 4_000_000_000}},
    } | other


def test_the_page_shows_what_the_results_give():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    table = predicted_frames.table(performance_table.results())
    assert marked_table.insert(page, table, predicted_frames.MARKERS) == page, "run tools/predicted_frames.py"


def test_the_formula():
    mac = predicted_frames.Mac("M9", 400, (200, 400), 2.0)
    assert predicted_frames.predicted_ms(mac, 4e9, 400) == pytest.approx(10 + 520 * 0.002 + 0.2)
    assert predicted_frames.predicted_ms(mac, 4e9, 200) == pytest.approx(20 + 520 * 0.002 + 0.2)
    more = predicted_frames.frame_bytes(result(), 3000) - predicted_frames.frame_bytes(result(), 250)
    assert more == 2750 * 32 * 2 * 4096 * 2


def test_only_a_gpus_bytes_are_taken_and_the_newest():
    found = [
        result(context=1),
        result(context=2),
        result(device="cpu"),
        result(bits={"temporal": 8}),
        result(kv_dtype="int8"),
        result(engine="graph"),
    ]
    assert predicted_frames.measured(found)["context"] == 2
    with pytest.raises(ValueError, match="no 4-bit result of the fused engine on a GPU"):
        predicted_frames.measured(found[2:])


def test_the_dispatches_are_those_that_the_c_tests_count():
    text = (ROOT / "tests" / "cpp" / "test_gpu_ops.cpp").read_text(encoding="utf-8")
    step, rest = re.search(r"frame.step <= (\d+).*frame.whole - frame.step <= (\d+)", text, re.S).groups()
    assert int(step) + int(rest) == predicted_frames.DISPATCHES


def test_a_row_for_every_mac():
    rows = predicted_frames.table([result()]).splitlines()
    assert len(rows) == 2 + len(predicted_frames.MACS)
    assert all(row.count("|") == rows[0].count("|") for row in rows)
    assert all(mac.sustained[0] <= mac.sustained[1] < mac.nominal for mac in predicted_frames.MACS)
