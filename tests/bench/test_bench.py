"""The benchmark: interleaved backends, complete rows, comparison of results, no timing of wrong outputs."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vaezoo.bench import backends, native, runner, timer
from vaezoo.bench.backends import BenchConfig
from vaezoo.bench.compare import compare_results, differences, read_result
from vaezoo.bench.models import from_model, from_run
from vaezoo.bench.native import native_modules
from vaezoo.bench.runner import Key, bench, find_bounds
from vaezoo.bench.timer import measure, summarize
from vaezoo.bench.workload import from_export
from vaezoo.data.spec import DataSpec
from vaezoo.errors import InputError, ParityError, UnsupportedDataError, VaezooError
from vaezoo.export.config import ExportConfig

CONFIG = BenchConfig("cpu", 1)


def shorten_timings(monkeypatch):
    """Takes few runs for each row."""
    monkeypatch.setattr(timer, "MIN_RUNS", 5)
    monkeypatch.setattr(runner, "MIN_RUNS", 6)
    monkeypatch.setattr(timer, "BLOCK_SECONDS", 0.002)
    monkeypatch.setattr(timer, "SETTLE_SECONDS", 0)


def break_compiler(monkeypatch):
    """Makes torch.compile fail, as without a C++ compiler."""

    def fail(module, dynamic):
        def run(x):
            raise RuntimeError("no compiler\nlong explanation")

        return run

    monkeypatch.setattr(native.torch, "compile", fail)


@pytest.fixture
def quick(monkeypatch):
    shorten_timings(monkeypatch)


@pytest.fixture
def no_compiler(monkeypatch):
    break_compiler(monkeypatch)


@pytest.fixture(scope="module")
def workload():
    return from_model("conv-vae")


@pytest.fixture(scope="module")
def result(workload):
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_timings(monkeypatch)
        break_compiler(monkeypatch)
        return bench(workload, CONFIG, [3, 1], seconds=0.005)


def test_every_backend_has_rows(result):
    rows = {(r["task"], r["batch"], r["io_mode"], r["backend"]) for r in result["rows"]}
    assert rows == {
        (task, batch, io_mode, name)
        for task in ("encoder", "decoder", "round trip")
        for batch in (1, 3)
        for io_mode in ("device", "host")
        for name in ("eager", "channels-last", "ort-cpu")
    }
    for row in result["rows"]:
        assert 0 < row["p25"] <= row["p50"] <= row["p75"] <= row["p90"] <= row["p99"]
        assert row["n"] >= 6 and row["max_abs"] < 1e-5 and row["bound"] in ("calls", "arithmetic")
        assert row["images_per_s"] == pytest.approx(1e3 * row["batch"] / row["p50"], rel=1e-3)


def test_speed_ups_over_pytorch(result):
    p50 = {(r["task"], r["batch"], r["io_mode"], r["backend"]): r["p50"] for r in result["rows"]}
    for row in (r for r in result["rows"] if r["backend"] == "ort-cpu"):
        where = row["task"], row["batch"], row["io_mode"]
        native = {name: p50[*where, name] for name in ("eager", "channels-last")}
        assert row["over_eager"] == pytest.approx(native["eager"] / row["p50"], abs=2e-3, rel=1e-3)
        assert row["over_best"] == pytest.approx(min(native.values()) / row["p50"], abs=2e-3, rel=1e-3)
        assert native[row["best"]] == min(native.values())
        assert list(row["nodes"]) == ["CPUExecutionProvider"] and row["created"] > 0 and row["first"] > 0


def test_result_states_the_setting(result):
    assert result["schema"] == 2 and result["setting"] == {
        "device": "cpu",
        "threads": 1,
        "tf32": False,
        "seconds": 0.005,
        "passes": 2,
    }
    assert result["environment"]["versions"]["torch"] and result["environment"]["cpu"]
    assert result["model"]["model"] == "vaezoo/conv-vae" and result["model"]["weights"] == "untrained"
    assert json.loads(json.dumps(result)) == result


def test_failing_backends_are_skipped(result):
    assert result["skipped"]["compile, encoder, batch 1, host"] == "RuntimeError: no compiler"


@pytest.mark.slow
def test_compiled_for_each_batch_size(quick):
    result = bench(from_model("mlp-vae"), CONFIG, [1, 4], tasks=["decoder"], seconds=0.005)
    assert {r["backend"] for r in result["rows"]} == {"eager", "compile", "ort-cpu"}, result["skipped"]


def test_both_sides_share_the_config(workload, quick, no_compiler, monkeypatch):
    seen = []
    real = backends.open_session

    def spy(data, provider, **options):
        seen.append((torch.get_num_threads(), options["threads"], torch.is_inference_mode_enabled()))
        return real(data, provider, **options)

    monkeypatch.setattr(backends, "open_session", spy)
    before = torch.get_num_threads()
    bench(workload, BenchConfig("cpu", 1), [1], seconds=0.001)
    assert set(seen) == {(1, 1, True)} and torch.get_num_threads() == before


@pytest.mark.slow
def test_wrong_outputs_are_not_timed(workload, quick, no_compiler, trained):
    wrong = dataclasses.replace(from_run(trained), files=workload.files)
    with pytest.raises(ParityError) as e:
        bench(wrong, CONFIG, [2], seconds=0.001)
    assert "encoder: 'mu' at batch 2 on ort-cpu" in e.value.message


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cvae", pytest.param("sentence-vae", marks=pytest.mark.matrix), "vq-vae", "ladder-vae", "iaf-vae"]
)
def test_each_kind_is_timed(name, quick, no_compiler):
    """Labels, ids that a decoder sees, codes and posteriors with modules reach both sides alike."""
    result = bench(from_model(name), CONFIG, [2], seconds=0.001)
    rows = {(r["task"], r["backend"]) for r in result["rows"]}
    assert rows >= {
        (task, backend) for task in ("encoder", "decoder", "round trip") for backend in ("eager", "ort-cpu")
    }


@pytest.mark.slow
def test_exports_are_timed_alone(quick, shared_export):
    exported = shared_export(uint8=True, dtype="fp16")
    result = bench(from_export(exported.path), CONFIG, [20], seconds=0.001)
    assert {r["backend"] for r in result["rows"]} == {"ort-cpu"}
    assert not any("over_eager" in r for r in result["rows"])
    assert result["model"]["format"] == {"opset": 18, "dtype": "fp16", "uint8": True}


@pytest.mark.slow
def test_both_sides_run_in_fp16(quick, no_compiler):
    images = DataSpec(name="images", shape=(3, 16, 16))
    workload = from_model("mlp-vae", images, ExportConfig(dtype="fp16"))
    result = bench(workload, CONFIG, [3], tasks=["encoder", "decoder"], seconds=0.001, passes=1)
    assert {r["backend"] for r in result["rows"]} == {"eager", "ort-cpu"}, result["skipped"]
    assert {r["task"] for r in result["rows"]} == {"encoder", "decoder"}
    assert all(1e-7 < r["max_abs"] < 1e-2 for r in result["rows"])  # rounded to 11 bits
    assert result["model"]["shape"] == [3, 16, 16] and result["model"]["format"]["dtype"] == "fp16"
    assert result["setting"]["passes"] == 1
    module = native_modules(workload.vae, "decoder", "cpu", "fp16")["eager"]
    assert {p.dtype for p in module.parameters()} == {torch.float16}


@pytest.mark.slow
def test_out_of_memory_is_reported(workload, quick, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(native, "native_backends", fail)
    with pytest.raises(VaezooError, match="batch 7 does not fit in the memory of cpu"):
        bench(workload, CONFIG, [7])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_all_backends_run_on_cuda(workload, quick):
    result = bench(workload, BenchConfig("cuda", 2), [1, 64], seconds=0.01)
    assert {"eager", "compile", "cuda-graph", "ort-cuda", "ort-cuda-graph"} <= {r["backend"] for r in result["rows"]}, (
        result["skipped"]
    )
    assert all(list(r["nodes"]) == ["CUDAExecutionProvider"] for r in result["rows"] if "nodes" in r)


class FakeClock:
    """Replaces the module `time`: only `sleep` takes time, so that busy machines do not matter."""

    def __init__(self):
        self.now = 0

    def perf_counter_ns(self):
        return self.now

    def sleep(self, seconds):
        self.now += round(1e9 * seconds)


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(timer, "time", clock)
    return clock


def test_backends_take_turns(clock, monkeypatch):
    order = []
    monkeypatch.setattr(timer, "BLOCK_SECONDS", 0.01)
    runs = {
        "slow": lambda: order.append("slow") or clock.sleep(0.004),
        "fast": lambda: order.append("fast") or clock.sleep(0.0005),
    }
    times = measure(runs, 0.04)
    assert len(times["fast"]) >= 100 and np.median(times["slow"]) > np.median(times["fast"])
    assert sum(a != b for a, b in itertools.pairwise(order)) > 10


def test_slow_backends_end_early(clock):
    times = measure({"slow": lambda: clock.sleep(0.02)}, 0.01)
    assert 1 <= len(times["slow"]) < 20


def test_quantiles_use_all_runs():
    times = np.arange(1, 101) / 1e3
    measurement = summarize(list(times))
    assert (measurement.n, measurement.p50, measurement.mean) == (100, pytest.approx(50.5), pytest.approx(50.5))
    assert measurement.p99 == pytest.approx(np.percentile(times * 1e3, 99))
    assert measurement.spread == pytest.approx(49.5 / 50.5)


def medians(times, io_mode):
    return {Key("encoder", batch, io_mode, "eager"): p50 for batch, p50 in times.items()}


def test_bounds_follow_from_scaling():
    p50 = medians({1: 1.0, 64: 1.5, 1024: 16.0}, "device") | medians({1: 1.1, 64: 4.0, 1024: 20.0}, "host")
    bounds = {(key.io_mode, key.batch): bound for key, bound in find_bounds(p50, "cuda").items()}
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
            "io_mode": "host",
            "backend": name,
            "p25": t * 0.95,
            "p50": t,
            "p75": t * 1.05,
        }
        for name, t in p50.items()
    ]
    path.write_text(json.dumps({"schema": 2, "environment": {"cpu": "a"}, "rows": rows}))
    return path


def test_changes_exceed_the_spread(tmp_path):
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


def test_stored_results_are_readable():
    files = list((Path(__file__).parents[2] / "benchmarks" / "results").glob("onnx-latency-*/*.json"))
    assert files and all(read_result(file)["rows"] for file in files)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 1, "rows": []}',
        '{"schema": 2, "rows": [1]}',
        '{"schema": 2, "rows": [{"task": "x", "batch": 1, "io_mode": "host", "backend": "c", "p25": 2, "p50": 1}]}',
    ],
)
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError):
        read_result(tmp_path / "a.json")


def test_free_sizes_are_measured(quick, no_compiler):
    workload = from_model("autoencoder-kl", image_size=20)
    assert workload.entry["shape"] == [1, 20, 20]
    result = bench(workload, CONFIG, [1, 3], seconds=0.01)
    assert {row["batch"] for row in result["rows"]} == {1, 3}
    assert {row["task"] for row in result["rows"]} == {"encoder", "decoder", "round trip"}
    assert workload.case("decoder", 3).outputs["x_mean"].shape == (3, 1, 20, 20)


def test_other_sizes_are_refused():
    with pytest.raises(UnsupportedDataError, match="image-size is 32, but the model takes only data of shape"):
        from_model("mlp-vae", image_size=32)
    with pytest.raises(UnsupportedDataError, match="21x21"):
        from_model("autoencoder-kl", image_size=21)


@pytest.mark.parametrize("task", ["encoder", "decoder", "round trip"])
def test_channels_last_runs_its_own_weights(workload, task):
    """Those in the other layout. It once ran the weights of the eager module, which its row then measured again."""
    modules = native_modules(workload.vae, task, "cpu")
    inputs = [torch.from_numpy(array) for array in workload.case(task, 2).inputs.values()]
    with torch.no_grad():
        expected = native.as_list(modules["eager"](*inputs))[0]
        for parameter in modules["channels-last"].parameters():
            parameter.zero_()
        assert not torch.equal(native.as_list(modules["channels-last"](*inputs))[0], expected)
        torch.testing.assert_close(native.as_list(modules["eager"](*inputs))[0], expected)
