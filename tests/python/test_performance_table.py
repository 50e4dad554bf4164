"""README.md shows what bench/results holds, and the table takes the newest result of a full-size configuration."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import marked_table  # noqa: E402
import performance_table  # noqa: E402


def result(ms: float = 120.0, **other: object) -> dict[str, object]:
    return {
        "model": "random:7b",
        "device": "cpu",
        "device_name": "AMD",
        "machine": {"processor": "AMD EPYC", "cores": 2},
        "engine": "fused",
        "instruction_set": "avx512bf16",
        "dtype": "float32",
        "kv_dtype": "bfloat16",
        "bits": {"temporal": 4},
        "compiled": False,
        "context": 250,
        "parts": {"total": {"p50_ms": ms, "p99_ms": ms + 9}},
        "real_time_factor": ms / 80,
        "fraction_of_bandwidth": 0.871,
        "peak_rss_gb": 5.21,
    } | other


def test_the_readme_shows_the_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = performance_table.table(performance_table.results())
    assert marked_table.insert(readme, table, performance_table.MARKERS) == readme, "run tools/performance_table.py"
    assert table.count("\n") > 3


def test_the_newest_result_of_a_configuration_counts():
    found = [
        result(140.0),
        result(model="random:tiny"),
        result(120.0),
        result(90.0, paced=True),
        result(80.0, context=0),
    ]
    rows = performance_table.table(found).splitlines()[2:]
    assert len(rows) == 3
    assert "| AMD EPYC, 2 cores | fused, avx512bf16 | 4-bit | 250 | 120, 129 | 1.50 | 87% | 5.2 GB |" in rows
    assert any("one every 80 ms" in row and "90.0, 99.0" in row for row in rows)


def test_what_an_older_result_lacks_is_a_dash():
    old = result(engine="graph", bits={"temporal": 16})
    for name in ("machine", "kv_dtype", "instruction_set", "fraction_of_bandwidth", "peak_rss_gb"):
        del old[name]
    (row,) = performance_table.table([old]).splitlines()[2:]
    assert row == "| AMD | graph, float32 | bfloat16 | 250 | 120, 129 | 1.50 | - | - |"


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="the page has no"):
        marked_table.insert("# nothing", "", performance_table.MARKERS)
