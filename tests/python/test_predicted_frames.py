"""docs/performance.md predicts frames on Macs from what bench/results counts, by the formula that it states."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

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
        "dispatches": 500.0,
        "parts": {"total": {"bytes": 4_000_000_000}},
    } | other


def test_the_page_shows_what_the_results_give():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    table = predicted_frames.table(performance_table.results())
    markers = (predicted_frames.BEGIN, predicted_frames.END)
    assert performance_table.insert(page, table, markers) == page, "run tools/predicted_frames.py"


def test_the_formula():
    mac = predicted_frames.Mac("M9", 400, (200, 400), 2.0)
    assert predicted_frames.predicted_ms(mac, 500.0, 4e9, 400) == pytest.approx(10 + 1 + 0.2)
    assert predicted_frames.predicted_ms(mac, 500.0, 4e9, 200) == pytest.approx(20 + 1 + 0.2)
    more = predicted_frames.frame_bytes(result(), 3000) - predicted_frames.frame_bytes(result(), 250)
    assert more == 2750 * 32 * 2 * 4096 * 2


def test_only_a_gpus_counts_are_taken_and_the_newest():
    found = [
        result(dispatches=1.0),
        result(dispatches=2.0),
        result(device="cpu", dispatches=3.0),
        result(bits={"temporal": 8}),
        result(kv_dtype="int8"),
        result(engine="graph"),
    ]
    assert predicted_frames.measured(found)["dispatches"] == 2.0
    with pytest.raises(ValueError, match="no 4-bit result of the fused engine on a GPU"):
        predicted_frames.measured(found[2:])


def test_a_row_for_every_mac():
    rows = predicted_frames.table([result()]).splitlines()
    assert len(rows) == 2 + len(predicted_frames.MACS)
    assert all(row.count("|") == rows[0].count("|") for row in rows)
    assert all(mac.sustained[0] <= mac.sustained[1] < mac.nominal for mac in predicted_frames.MACS)
