"""The benchmark: fair turns, complete rows, differences found, nothing measured that computes something else."""

import itertools
import json
import time

import numpy as np
import pytest
import torch

from vaezoo import export_onnx
from vaezoo.bench import backends, runner, timer
from vaezoo.bench.backends import BenchConfig
from vaezoo.bench.compare import compare_results, differences, read_result
from vaezoo.bench.runner import add_bounds, bench
from vaezoo.bench.timer import measure, summarize
from vaezoo.bench.workload import from_export, from_model, from_run
from vaezoo.errors import InputError, ParityError, VaezooError

SETTING = BenchConfig("cpu", 1)


@pytest.fixture
def quick(monkeypatch):
    """Little time for each figure."""
    monkeypatch.setattr(timer, "MIN_RUNS", 5)
    monkeypatch.setattr(runner, "MIN_RUNS", 6)
    monkeypatch.setattr(timer, "BLOCK", 0.002)
    monkeypatch.setattr(timer, "SETTLE", 0)


@pytest.fixture
def no_compiler(monkeypatch):
    """A compiler that fails, as one does that is not installed."""

    def fail(module, dynamic):
        def run(x):
            raise RuntimeError("no compiler\nlong explanation")

        return run

    monkeypatch.setattr(backends.torch, "compile", fail)


@pytest.fixture
def result(quick, no_compiler):
    return bench(from_model("conv-vae"), SETTING, [3, 1], seconds=0.005)


def test_every_task_batch_and_regime_has_a_row_for_each_contestant(result):
    rows = {(r["task"], r["batch"], r["regime"], r["contestant"]) for r in result["rows"]}
    assert rows == {
        (task, batch, regime, name)
        for task in ("encoder", "decoder", "round trip")
        for batch in (1, 3)
        for regime in ("device", "host")
        for name in ("eager", "channels-last", "ort-cpu")
    }
    for row in result["rows"]:
        assert 0 < row["p25"] <= row["p50"] <= row["p75"] <= row["p90"] <= row["p99"]
        assert row["n"] >= 6 and row["max_abs"] < 1e-5 and row["bound"] in ("calls", "arithmetic")
        assert row["images_per_s"] == pytest.approx(1e3 * row["batch"] / row["p50"], rel=1e-3)


def test_speed_ups_are_over_eager_and_over_the_best_of_pytorch(result):
    p50 = {(r["task"], r["batch"], r["regime"], r["contestant"]): r["p50"] for r in result["rows"]}
    for row in (r for r in result["rows"] if r["contestant"] == "ort-cpu"):
        where = row["task"], row["batch"], row["regime"]
        native = {name: p50[*where, name] for name in ("eager", "channels-last")}
        assert row["over_eager"] == pytest.approx(native["eager"] / row["p50"], abs=2e-3)
        assert row["over_best"] == pytest.approx(min(native.values()) / row["p50"], abs=2e-3)
        assert native[row["best"]] == min(native.values())
        assert list(row["nodes"]) == ["CPUExecutionProvider"] and row["created"] > 0 and row["first"] > 0


def test_the_result_says_what_it_was_measured_on(result):
    assert result["schema"] == 1 and result["setting"] == {
        "device": "cpu",
        "threads": 1,
        "tf32": False,
        "seconds": 0.005,
    }
    assert result["environment"]["versions"]["torch"] and result["environment"]["cpu"]
    assert result["model"]["model"] == "vaezoo/conv-vae" and result["model"]["weights"] == "untrained"
    assert json.loads(json.dumps(result)) == result


def test_a_contestant_that_fails_is_left_out_with_the_reason(result):
    assert result["left_out"]["compile, encoder, batch 1, host"] == "RuntimeError: no compiler"


def test_a_model_is_compiled_for_each_batch_size(quick, monkeypatch):
    monkeypatch.setattr(runner, "TASKS", ("decoder",))
    result = bench(from_model("mlp-vae"), SETTING, [1, 4], seconds=0.005)
    assert {r["contestant"] for r in result["rows"]} == {"eager", "compile", "ort-cpu"}, result["left_out"]


def test_threads_and_precision_are_the_same_on_both_sides_and_restored(quick, no_compiler, monkeypatch):
    seen = []
    real = backends.open_session

    def spy(data, provider, **options):
        seen.append((torch.get_num_threads(), options["threads"], torch.is_inference_mode_enabled()))
        return real(data, provider, **options)

    monkeypatch.setattr(backends, "open_session", spy)
    before = torch.get_num_threads()
    bench(from_model("mlp-vae"), BenchConfig("cpu", 1), [1], seconds=0.001)
    assert set(seen) == {(1, 1, True)} and torch.get_num_threads() == before


def test_what_computes_something_else_is_not_timed(quick, no_compiler, trained):
    subject = from_run(trained)
    other = from_model("conv-vae")
    wrong = type(subject)(**{f: getattr(subject, f) for f in subject.__slots__} | {"files": other.files})
    with pytest.raises(ParityError) as e:
        bench(wrong, SETTING, [2], seconds=0.001)
    assert "encoder: 'mu' at batch 2 on ort-cpu" in e.value.message


def test_an_export_is_timed_without_the_model(quick, trained, tmp_path):
    exported = export_onnx(trained, tmp_path / "out", uint8=True, dtype="fp16")
    result = bench(from_export(exported.path), SETTING, [20], seconds=0.001)
    assert {r["contestant"] for r in result["rows"]} == {"ort-cpu"}
    assert not any("over_eager" in r for r in result["rows"])
    assert result["model"]["format"] == {"opset": 18, "dtype": "fp16", "uint8": True}


def test_too_little_memory_is_told(quick, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(runner, "native_contestants", fail)
    with pytest.raises(VaezooError, match="batch 7 does not fit into the memory of cpu"):
        bench(from_model("mlp-vae"), SETTING, [7])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_cuda_all_contestants_run_and_every_node_is_on_cuda(quick):
    result = bench(from_model("conv-vae"), BenchConfig("cuda", 2), [1, 64], seconds=0.01)
    assert {"eager", "compile", "cuda-graph", "ort-cuda", "ort-cuda-graph"} <= {
        r["contestant"] for r in result["rows"]
    }, result["left_out"]
    assert all(list(r["nodes"]) == ["CUDAExecutionProvider"] for r in result["rows"] if "nodes" in r)


def test_contestants_take_turns_until_each_has_run_enough(monkeypatch):
    order = []
    monkeypatch.setattr(timer, "BLOCK", 0.01)
    runs = {
        "slow": lambda: order.append("slow") or time.sleep(0.004),
        "fast": lambda: order.append("fast") or time.sleep(0.0005),
    }
    times = measure(runs, 0.04)
    assert len(times["fast"]) >= 100 and np.median(times["slow"]) > np.median(times["fast"])
    assert sum(a != b for a, b in itertools.pairwise(order)) > 10


def test_a_slow_contestant_ends_at_ten_times_the_seconds():
    times = measure({"slow": lambda: time.sleep(0.02)}, 0.01)
    assert 1 <= len(times["slow"]) < 20


def test_quantiles_are_those_of_all_runs():
    times = np.arange(1, 101) / 1e3
    timing = summarize(list(times))
    assert (timing.n, timing.p50, timing.mean) == (100, pytest.approx(50.5), pytest.approx(50.5))
    assert timing.p99 == pytest.approx(np.percentile(times * 1e3, 99))
    assert timing.spread == pytest.approx(49.5 / 50.5)


def rows_of(times, regime="device", contestant="eager"):
    return [
        {"task": "encoder", "batch": b, "regime": regime, "contestant": contestant, "p50": t} for b, t in times.items()
    ]


def test_what_bounds_a_row_follows_from_its_scaling():
    rows = [*rows_of({1: 1.0, 64: 1.5, 1024: 16.0}), *rows_of({1: 1.1, 64: 4.0, 1024: 20.0}, "host")]
    add_bounds(rows, "cuda")
    bounds = {(r["regime"], r["batch"]): r["bound"] for r in rows}
    assert bounds == {
        ("device", 1): "calls",
        ("device", 64): "arithmetic",
        ("device", 1024): "arithmetic",
        ("host", 1): "calls",
        ("host", 64): "copies",
        ("host", 1024): "arithmetic",
    }


def write(path, **p50):
    rows = [
        {
            "task": "encoder",
            "batch": 1,
            "regime": "host",
            "contestant": name,
            "p25": t * 0.95,
            "p50": t,
            "p75": t * 1.05,
        }
        for name, t in p50.items()
    ]
    path.write_text(json.dumps({"schema": 1, "environment": {"cpu": "a"}, "rows": rows}))
    return path


def test_changes_beyond_the_spread_are_told_apart(tmp_path):
    a = read_result(write(tmp_path / "a.json", faster=1.0, slower=1.0, same=1.0, gone=1.0))
    b = read_result(write(tmp_path / "b.json", faster=0.8, slower=1.2, same=1.08, new=1.0))
    verdicts = {c.where[-1]: c.verdict for c in compare_results(a, b)}
    assert verdicts == {
        "faster": "faster",
        "slower": "slower",
        "same": "same",
        "gone": "missing",
        "new": "missing",
    }
    assert differences(a, b | {"environment": {"cpu": "b"}}) == ["environment cpu: a -> b"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 2, "rows": []}',
        '{"schema": 1, "rows": [1]}',
        '{"schema": 1, "rows": [{"task": "x", "batch": 1, "regime": "host", "contestant": "c", "p25": 2, "p50": 1}]}',
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError):
        read_result(tmp_path / "a.json")
