"""The commands around exports: export, verify, bench, doctor, and sample and reconstruct of an export."""

import dataclasses
import json
import shutil
from pathlib import Path

import onnx
import pytest
from PIL import Image

from vaezoo import export_onnx
from vaezoo.bench import runner, timer


def test_export_prints_graphs_and_commands(run, trained, inside):
    code, out, err = run("export", trained.path, "--onnx", "--out", "mine", "--dtype", "fp16", "--uint8")
    assert code == 0 and err == ""
    assert "x[batch, 28, 28, 1] uint8 -> mu[batch, 16], logvar[batch, 16]" in out
    assert "opset 18, fp16" in out and "round trip" in out and "vaezoo verify mine" in out
    code, out, _ = run("export", trained.path, "--onnx", "--out", "mine", "--json")
    manifest = json.loads(out)
    assert manifest["folder"] == "mine" and manifest["format"]["dtype"] == "fp32"


@pytest.mark.slow
def test_parts_in_int8(run, trained, inside):
    code, out, err = run("export", trained.path, "--onnx", "--out", "mine", "--parts", "decoder", "--dtype", "int8")
    assert (code, err) == (0, "") and "decoder.onnx" in out and "encoder.onnx" not in out and "rms difference" in out
    assert run("sample", "mine", "--out", "a.png")[:2] == (0, "a.png\n")
    code, _, err = run("reconstruct", "mine")
    assert code == 2 and "mine has no graph 'encoder': it has decoder" in err
    code, _, err = run("export", trained.path, "--onnx", "--out", "other", "--parts", "decoder,flow")
    assert code == 2 and "there is no part 'flow'" in err and not Path("other").exists()


@pytest.mark.slow
def test_derived_files_are_verified(run, exported, inside):
    shutil.copytree(exported.path, "copy")
    model = onnx.load("copy/decoder.onnx")
    model.doc_string = "written by another tool"
    onnx.save(model, "copy/decoder.onnx")
    assert run("verify", "copy")[0] == 3
    code, out, _ = run("verify", "copy", "--tolerance", "1e-3")
    assert code == 0 and "derived  decoder.onnx: not the files that were exported" in out and "hashes" not in out
    assert json.loads(run("verify", "copy", "--tolerance", "1e-3", "--json")[1])["derived"] == ["decoder"]
    assert run("verify", "copy", "--tolerance", "0")[0] == 2


def test_verify_has_exit_codes(run, exported, inside):
    code, out, _ = run("verify", exported.path)
    assert code == 0 and "ok" in out and "golden set 0" in out
    result = json.loads(run("verify", exported.path, "--json")[1])
    assert result["runtime"] == "onnxruntime" and len(result["rows"]) == 7
    shutil.copytree(exported.path, "copy")
    Path("copy/decoder.onnx").write_bytes(b"")
    code, out, err = run("verify", "copy")
    assert code == 3 and out == "" and err.startswith("vaezoo: error: copy/decoder.onnx has 0 bytes")
    assert run("verify", "nothing")[0] == 3


def test_outputs_go_beside_an_export(run, trained, exported, inside, monkeypatch):
    shutil.copytree(exported.path, "exports/mine")
    files = set(Path("exports/mine").rglob("*"))
    for command, name in (("sample", "samples.png"), ("reconstruct", "reconstructions.png"), ("encode", "latents.npz")):
        data = [] if command == "sample" else ["--data", "digits", "--part", "test"]
        assert run(command, "exports/mine/", *data)[:2] == (0, f"exports/mine-outputs/{name}\n")
    assert run("plot", "exports/mine", "--kind", "samples")[:2] == (0, "exports/mine-outputs/samples.png\n")
    assert set(Path("exports/mine").rglob("*")) == files
    assert run("export", trained.path, "--onnx", "--out", "exports/mine", "--parts", "decoder")[0] == 0
    assert len(list(Path("exports/mine-outputs").iterdir())) == 3
    monkeypatch.chdir("exports/mine")
    assert run("sample", ".")[:2] == (0, f"{inside.resolve()}/exports/mine-outputs/samples.png\n")


@pytest.mark.slow
def test_evaluation_of_an_exported_module(run, trained, inside):
    export_onnx(trained.vae, "mine", examples=trained.examples.x)
    code, out, err = run("eval", "mine", "--data", "digits", "--limit", 20)
    assert code == 0, err
    assert out.startswith(f"{type(trained.vae).__name__}, on the test split of digits: 20 of")


def test_exports_can_be_drawn(run, exported, trained, inside):
    assert run("sample", exported.path, "--out", "a.png", "-n", 9, "--seed", 3)[:2] == (0, "a.png\n")
    run("sample", exported.path, "--out", "b.png", "-n", 9, "--seed", 3)
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    run("reconstruct", exported.path, "--out", "exported.png", "-n", 6)
    run("reconstruct", trained.path, "--out", "run.png", "-n", 6, "--data", "digits")
    with Image.open("exported.png") as a, Image.open("run.png") as b:
        assert a.size == b.size
        assert max(abs(x - y) for x, y in zip(a.tobytes(), b.tobytes(), strict=True)) <= 1


def test_export_has_one_checkpoint(run, exported, inside):
    code, _, err = run("sample", exported.path, "--checkpoint", "last")
    assert code == 2 and "contains one checkpoint" in err


@pytest.mark.slow
def test_export_of_unnamed_data(run, trained, inside):
    data = dataclasses.replace(trained.data, name="my-photos")
    export_onnx(dataclasses.replace(trained, data=data), "mine")
    code, _, err = run("reconstruct", "mine")
    assert code == 2 and "my-photos" in err and "--data" in err
    assert run("reconstruct", "mine", "--data", "digits")[0] == 0


@pytest.fixture
def quick(monkeypatch):
    """Makes a measurement as short as possible."""
    monkeypatch.setattr(runner, "MIN_RUNS", 4)
    monkeypatch.setattr(timer, "BLOCK_SECONDS", 0.001)


def test_bench_writes_and_compares(run, exported, quick, inside):
    code, out, err = run(
        "bench", exported.path, "--batch", "1,2", "--seconds", "0.001", "--threads", 1, "--json", "a.json"
    )
    assert code == 0 and "written  a.json" in err
    assert "encoder, inputs and outputs on the device" in out and "round trip, numpy in, numpy out" in out
    assert "over eager" not in out
    code, out, _ = run("bench", "--compare", "a.json", "a.json")
    assert code == 0 and "0 rows changed by more than their spread, 12 did not; 0 are in only one file" in out
    result = json.loads(Path("a.json").read_text())
    result["rows"][0] |= {"p25": 1e3, "p50": 1e3, "p75": 1e3}
    result["environment"]["cores"] = 99
    Path("b.json").write_text(json.dumps(result))
    out = run("bench", "--compare", "a.json", "b.json")[1]
    assert "1 rows changed" in out and "slower" in out and "-> 99" in out


def test_bench_prints_only_json(run, exported, quick, inside):
    code, out, _ = run("bench", exported.path, "--batch", "1", "--seconds", "0.001", "--json", "-")
    assert code == 0 and json.loads(out)["model"]["weights"] == "exported"


def test_bench_of_an_export_has_its_sizes(run, exported, inside):
    code, _, err = run("bench", exported.path, "--image-size", "32")
    assert code == 2 and "--image-size needs the model" in err and "hint: give the run" in err


@pytest.mark.slow
def test_bench_of_untrained_model(run, quick, inside):
    code, out, err = run("bench", "mlp-vae", "--batch", "1", "--seconds", "0.001")
    assert code == 0, err
    assert "vaezoo/mlp-vae 1x28x28, untrained" in out and "over best" in out and "compile" in out


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["bench", "nothing"], 3, "there is no run 'nothing'"),
        (["bench"], 3, "no run in runs/"),
        (["bench", "mlp-vae", "--batch", "1,0"], 2, "'0' is not a batch size"),
        (["bench", "mlp-vae", "--batch", "1;8"], 2, "'1;8' is not a batch size"),
        (["bench", "mlp-vae", "--device", "tpu"], 2, "tpu"),
        (["bench", "--compare", "a.json", "b.json"], 3, "cannot read a.json"),
        (["bench", "mlp-vae", "--compare", "a.json", "b.json"], 2, "no model, but got 'mlp-vae'"),
        (["bench", "mlp-vae", "--tf32"], 2, "tf32 needs CUDA"),
        (["export", "--onnx", "--opset", "14"], 2, "opset 14 is out of range"),
        (["export", "--onnx", "--dtype", "int4"], 2, "int4"),
        (["verify", ".", "--provider", "tensorrt"], 2, "tensorrt"),
        (["verify", "."], 3, "is not an export"),
    ],
)
def test_invalid_input_is_refused(run, inside, arguments, code, error):
    actual, out, err = run(*arguments)
    assert actual == code and out == "" and error in err
    assert err.splitlines()[-1].startswith("hint: ")
    assert list(Path().iterdir()) == []


def test_missing_cuda_is_an_error(run, exported, inside):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for command in (["verify", exported.path, "--provider", "cuda"], ["bench", exported.path, "--device", "cuda"]):
        code, out, err = run(*command)
        assert code == 2 and out == "" and ("libcuda.so.1" in err or "no CUDA provider" in err)


def test_doctor_shows_providers(run):
    code, out, _ = run("doctor")
    assert code == 0 and "loads and runs" in out and "onnxruntime on cuda" in out
    findings = {f["subject"]: f for f in json.loads(run("doctor", "--json")[1])}
    assert findings["onnxruntime on cpu"]["state"] == "loads and runs"
