"""The benchmarks run, and write what they promise."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from conftest import write_video


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_decode(tmp_path, monkeypatch, capsys):
    path = Path(__file__).parents[1] / "benchmarks" / "decode.py"
    spec = importlib.util.spec_from_file_location("benchmarks_decode", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(
        benchmark, "apart", lambda function, *arguments: function(*arguments)
    )  # a process costs seconds
    monkeypatch.setattr(benchmark, "BATCHES", 2)
    for i in range(2):
        write_video(tmp_path / f"{i}.avi", 30 + i, width=64, height=48)
    arguments = ["--clips", "4", "--rounds", "1", "--sizes", "3", "6"]
    benchmark.main(["--data", str(tmp_path), "--out", str(tmp_path / "record.json"), *arguments])
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["speed"]["videos"] == 2 and set(record["speed"]["ratio_to_plain"]) == {"1 worker", "2 workers"}
    assert [row["cache_bytes"] for row in record["memory"]] == [count * 8 * 64 * 64 * 3 for count in (3, 6)]
    assert all(rate > 0 for rates in record["speed"]["clips_per_second"].values() for rate in rates)
    said = capsys.readouterr().out
    assert "x plain" in said and "ucf101, 13,320 videos" in said
