"""benchmarks/gpu.py on the CPU: time limits, failures, packed runs, and its tiny form. No test asserts a time."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from importlib.metadata import distribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vaezoo.bench.backends import BenchConfig
from vaezoo.bench.compare import read_result

FOLDER = Path(__file__).parents[1] / "benchmarks"
RESULTS = FOLDER / "results" / "onnx-latency-amd-epyc-2-threads"
ENOUGH = 600.0  # seconds, more than any row here needs


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that imports a module of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.fixture
def run(script: Any) -> Any:
    """Returns a function that runs rows of Python code and returns their outcomes by name."""
    rows = script("gpu_rows")

    def run_code(budget: float, codes: dict[str, str], **options: Any) -> dict[str, Any]:
        outcomes: list[Any] = []
        settings = {"least": 0, "most": ENOUGH, **options}
        rows.run_rows(
            [rows.Row(name=n, command=["-c", c], **settings) for n, c in codes.items()], budget, outcomes.append
        )
        return {outcome["row"]: outcome for outcome in outcomes}

    return run_code


def test_rows_have_outcomes(run: Any) -> None:
    codes = {
        "object": """print('text'); print('{"value": NaN}')""",
        "text": "print('written')",
        "failing": "raise SystemExit('out of luck')",
        "skipped": """print('{"skipped": "no such device"}')""",
    }
    outcomes = run(ENOUGH, codes)
    assert {name: outcome["status"] for name, outcome in outcomes.items()} == {
        "object": "done",
        "text": "done",
        "failing": "failed",
        "skipped": "skipped",
    }
    assert outcomes["object"]["result"] == {"value": "NaN"}
    assert [outcomes[name]["output"] for name in codes] == ["", "written", "out of luck", "no such device"]


def test_row_that_hangs_is_ended(run: Any) -> None:
    outcome = run(ENOUGH, {"hanging": "import time; time.sleep(600)"}, most=0.1)["hanging"]
    assert outcome["status"] == "timed out"


def test_row_may_save_before_it_is_ended(script: Any, tmp_path: Path) -> None:
    code = f"""
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('{{"saved": true}}')))
pathlib.Path({str(tmp_path / "ready")!r}).touch()
time.sleep(600)
"""
    rows = script("gpu_rows")
    running = rows.RunningRow(rows.Row(name="saving", command=["-c", code], least=0, most=ENOUGH), ENOUGH)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    outcome = running.stop("timed out")
    assert (outcome["status"], outcome["result"]) == ("timed out", {"saved": True})


@pytest.mark.parametrize(("budget", "least"), [(0.0, 0.0), (100.0, 90.0)])
def test_rows_without_time_are_not_started(run: Any, tmp_path: Path, budget: float, least: float) -> None:
    outcomes = run(budget, {"a": f"open({str(tmp_path / 'a')!r}, 'w')", "b": ""}, least=least)
    assert {outcome["status"] for outcome in outcomes.values()} == {"not started"}
    assert not (tmp_path / "a").exists()


def test_missing_packages_are_reasons(run: Any) -> None:
    outcome = run(ENOUGH, {"a": ""}, missing="not installed: pythae")["a"]
    assert (outcome["status"], outcome["output"]) == ("skipped", "not installed: pythae")


def test_rows_run_side_by_side(run: Any, tmp_path: Path) -> None:
    code = """
import pathlib, time
pathlib.Path({own!r}).touch()
while not pathlib.Path({other!r}).exists():
    time.sleep(0.01)
"""
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    outcomes = run(ENOUGH, {"a": code.format(own=a, other=b), "b": code.format(own=b, other=a)}, beside=True)
    assert {outcome["status"] for outcome in outcomes.values()} == {"done"}


def test_interruption_reports_all_rows(script: Any) -> None:
    rows, outcomes = script("gpu_rows"), list[Any]()

    def report(outcome: Any) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 1:
            raise KeyboardInterrupt

    three = [rows.Row(name=name, command=["-c", ""], least=0, most=ENOUGH) for name in "abc"]
    with pytest.raises(KeyboardInterrupt):
        rows.run_rows(three, ENOUGH, report)
    assert [(o["row"], o["status"]) for o in outcomes] == [("a", "done"), ("b", "not started"), ("c", "not started")]


def test_failures_are_written(script: Any, tmp_path: Path) -> None:
    gpu, rows = script("gpu"), script("gpu_rows")
    args = type("Args", (), {"out": tmp_path, "device": "cpu", "tiny": True, "budget": ENOUGH})
    commands = {"broken": ["-c", "raise ValueError('injected')"], "whole": ["-c", "print('{}')"]}
    planned = [rows.Row(name=name, command=command, least=0, most=ENOUGH) for name, command in commands.items()]
    outcomes = gpu.measure("latency", planned, args)
    written = json.loads((tmp_path / "gpu-latency.json").read_text())["rows"]
    assert written == outcomes
    assert [row["status"] for row in written] == ["failed", "done"]
    assert "ValueError: injected" in written[0]["output"]
    assert "| broken | failed |" in "\n".join(gpu.summary(outcomes))


def test_metadata_is_that_of_an_installation(script: Any, tmp_path: Path) -> None:
    script("gpu_setup").write_metadata(tmp_path)
    (found,) = distributions(path=[str(tmp_path)])
    installed = distribution("vaezoo")
    for field in ("Name", "Version", "License-Expression"):
        assert found.metadata[field] == installed.metadata[field]
    assert set(found.entry_points) == set(installed.entry_points)


def test_packs_are_unpacked(script: Any, tmp_path: Path) -> None:
    packs, site = [tmp_path / "a", tmp_path / "b"], tmp_path / "site-packages"
    for folder in (*packs, site / "nvidia" / "cu13" / "lib", site / "onnxruntime" / "transformers"):
        folder.mkdir(parents=True)
    (site / "onnxruntime" / "transformers" / "float16.py").touch()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        tar.addfile(tarfile.TarInfo("onnxruntime/__init__.py"))
    archive = stream.getvalue()
    (packs[1] / "ort.tar.xz.1").write_bytes(archive[30:])
    (packs[0] / "ort.tar.xz.0").write_bytes(archive[:30])
    (packs[0] / "labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"7"))
    with zipfile.ZipFile(packs[1] / "pythae-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pythae/__init__.py", "")
    work = tmp_path / "work"
    environment = script("gpu_setup").set_up(packs, work, site)
    assert (work / "ort" / "onnxruntime" / "__init__.py").exists()
    assert (work / "ort" / "onnxruntime" / "transformers" / "float16.py").exists()
    assert (work / "site" / "pythae" / "__init__.py").exists()
    assert Path(environment["MNIST_DIR"], "MNIST", "raw", "labels-idx1-ubyte").read_bytes() == b"7"
    assert environment["PYTHONPATH"].startswith(f"{work / 'ort'}{os.pathsep}{work / 'site'}")
    assert str(site / "nvidia" / "cu13" / "lib") in environment["LD_LIBRARY_PATH"]


def test_cells_survive_failures(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, stored = script("latency_cells"), read_result(RESULTS / "conv-vae.json")

    def bench(workload: Any, config: Any, batches: list[int], *, tasks: list[str], **_: Any) -> dict[str, Any]:
        if batches == [8]:
            raise ValueError("injected")
        rows = [row for row in stored["rows"] if (row["task"], row["batch"]) == (tasks[0], batches[0])]
        return {**stored, "rows": rows, "skipped": {}}

    monkeypatch.setattr(cells, "bench", bench)
    config = BenchConfig("cpu", 1)
    *_, result = cells.measure_cells(None, config, [64, 8, 1], ["decoder"], 0.1, ENOUGH, lambda line: None)
    assert result["skipped"] == {"decoder, batch 8": "ValueError: injected"}
    assert result["rows"] == [r for r in stored["rows"] if r["task"] == "decoder" and r["batch"] in (1, 64)]
    with pytest.raises(RuntimeError, match="not started: no time was left"):
        list(cells.measure_cells(None, config, [64], ["decoder"], 0.1, -1.0, lambda line: None))


def test_tables_name_shape_and_dtype(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "onnx-latency-x"
    folder.mkdir()
    result = read_result(RESULTS / "conv-vae.json")
    (folder / "conv-vae.json").write_text(json.dumps(result))
    result["model"] |= {"shape": [3, 128, 128], "format": {**result["model"]["format"], "dtype": "fp16"}}
    result["rows"] = [row for row in result["rows"] if row["task"] == "decoder"]
    (folder / "conv-vae-3x128x128-fp16.json").write_text(json.dumps(result))
    lines = script("onnx_latency").tables(tmp_path)
    names = [line.split(" | ")[:2] for line in lines if line.startswith("| conv-vae")][:4]
    assert [task for _, task in names] == ["encoder", "decoder", "round trip", "decoder"]
    assert names[3][0] == "| conv-vae 3x128x128 fp16"
    assert "conv-vae 3x128x128 fp16, milliseconds on the device, median (99th percentile):" in lines


def test_slow_cells_are_profiled(script: Any) -> None:
    result = read_result(RESULTS / "vae-gan.json")
    rows = [r for r in result["rows"] if r["io_mode"] == "device" and r.get("over_best", 1.0) < 0.9]
    assert rows and script("gpu_tasks").slow_cells(result) == sorted(rows, key=lambda row: row["over_best"])[:3]


@pytest.mark.slow
def test_profiles_name_nodes(script: Any) -> None:
    tasks = script("gpu_tasks")
    row = {"task": "decoder", "batch": 2, "over_best": 0.5, "best": "compile"}
    profile = tasks.profile_cell(tasks.load(read_result(RESULTS / "mlp-vae.json")), row, "cpu")
    assert any(name.startswith(("FusedGemm", "Gemm")) for name in profile["nodes"])


def test_papers_schedules(script: Any) -> None:
    recipes = script("gpu_recipes")
    config = recipes.paper_recipe("burda-1l", "cpu", False).training
    total, epoch = config.total_steps(57_000), 2850
    assert total == 3280 * epoch
    assert [config.lr_factor(step, total) for step in (0, epoch, 4 * epoch, 1093 * epoch)] == pytest.approx(
        [1, 10 ** (-1 / 7), 10 ** (-2 / 7), 0.1]
    )
    assert recipes.paper_recipe("gated-300-300-40", "cpu", False).training.total_steps(57_000) == 2000 * 570


def test_packed_run_is_unpacked(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipes = script("gpu_recipes")
    monkeypatch.setattr(recipes, "PART_BYTES", 100)
    run, out = tmp_path / "a" / "run", tmp_path / "out"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "weights").write_bytes(os.urandom(1500))
    for _ in range(2):
        recipes.pack(run, out)
    assert len(list(out.iterdir())) > 10  # so that part 10 must follow part 9
    recipes.unpack(out, tmp_path / "b" / "run")
    copy = tmp_path / "b" / "run" / "checkpoints" / "weights"
    assert copy.read_bytes() == (run / "checkpoints" / "weights").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", [*(pytest.param(p, marks=pytest.mark.matrix) for p in ("latency", "training")), "likelihood", "recipes"]
)
def test_tiny_part(script: Any, part: str, tmp_path: Path) -> None:
    command = [FOLDER / "gpu.py", part, "--device", "cpu", "--tiny", "--out", tmp_path / "out", "--runs", tmp_path]
    # Without dynamo, everything runs but the compiler, which takes minutes on a busy machine.
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    rows = json.loads((tmp_path / "out" / f"gpu-{part}.json").read_text())["rows"]
    assert process.returncode == 0, (rows, process.stderr)
    if any(row["status"] == "done" for row in rows):
        assert_tables(script, part, tmp_path)
    else:
        assert [row["output"] for row in rows] == ["not installed: pythae"]


def assert_tables(script: Any, part: str, tmp_path: Path) -> None:
    """Checks that the table writers accept the results of a part."""
    out, readme = tmp_path / "out", shutil.copy(FOLDER / "README.md", tmp_path / "README.md")
    writers = {
        "latency": ("onnx-latency", "onnx_latency.py", lambda: script("onnx_latency").tables(out)),
        "training": ("train-throughput", "train_throughput.py", lambda: script("train_results").tables(out)),
        "likelihood": ("nll-speed", "nll_speed.py", lambda: script("nll_speed").tables(out)),
        "recipes": ("recipes", "recipes.py", lambda: script("recipes").file_tables(out / "recipes-cpu.json")),
    }
    name, writer, make = writers[part]
    lines = make()
    assert sum(line.startswith("| ") for line in lines) > 1
    script("tables").put_tables(name, writer, lines, Path(readme))
    assert "\n".join(lines).strip() in Path(readme).read_text()
