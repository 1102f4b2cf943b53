"""verify, bench, doctor, and sample and reconstruct of an export, as users type them."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vaezoo import export_onnx
from vaezoo.bench import runner, timer


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return export_onnx(trained, tmp_path_factory.mktemp("exports") / "conv").path


def test_export_tells_what_it_wrote_and_what_to_type_next(run, trained, inside):
    code, out, err = run("export", trained.path, "--onnx", "--out", "mine", "--dtype", "fp16", "--uint8")
    assert code == 0 and err == ""
    assert "x[batch, 28, 28, 1] uint8 -> mu[batch, 16], logvar[batch, 16]" in out
    assert "opset 18, fp16" in out and "round trip" in out and "vaezoo verify mine" in out
    code, out, _ = run("export", trained.path, "--onnx", "--out", "mine", "--json")
    told = json.loads(out)
    assert told["folder"] == "mine" and told["format"]["dtype"] == "fp32"


def test_verify_passes_and_fails_with_its_codes(run, exported, inside):
    code, out, _ = run("verify", exported)
    assert code == 0 and "ok" in out and "golden set 0" in out
    told = json.loads(run("verify", exported, "--json")[1])
    assert told["runtime"] == "onnxruntime" and len(told["rows"]) == 7
    shutil.copytree(exported, "copy")
    Path("copy/decoder.onnx").write_bytes(b"")
    code, out, err = run("verify", "copy")
    assert code == 3 and out == "" and err.startswith("vaezoo: error: copy/decoder.onnx has 0 bytes")
    assert run("verify", "nothing")[0] == 3


def test_sample_and_reconstruct_take_an_export(run, exported, trained, inside):
    assert run("sample", exported, "--out", "a.png", "-n", 9, "--seed", 3)[:2] == (0, "a.png\n")
    run("sample", exported, "--out", "b.png", "-n", 9, "--seed", 3)
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    run("reconstruct", exported, "--out", "exported.png", "-n", 6)
    run("reconstruct", trained.path, "--out", "run.png", "-n", 6, "--data", "digits")
    with Image.open("exported.png") as a, Image.open("run.png") as b:
        assert a.size == b.size
        assert max(abs(x - y) for x, y in zip(a.tobytes(), b.tobytes(), strict=True)) <= 1


def test_a_checkpoint_of_an_export_cannot_be_chosen(run, exported, inside):
    code, _, err = run("sample", exported, "--checkpoint", "last")
    assert code == 2 and "holds one checkpoint" in err


def test_an_export_of_unknown_data_wants_data(run, trained, inside):
    data = dataclasses.replace(trained.data, name="my-photos")
    export_onnx(dataclasses.replace(trained, data=data), "mine")
    code, _, err = run("reconstruct", "mine")
    assert code == 2 and "my-photos" in err and "--data" in err
    assert run("reconstruct", "mine", "--data", "digits")[0] == 0


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(runner, "MIN_RUNS", 4)
    monkeypatch.setattr(timer, "BLOCK", 0.001)


def test_bench_of_an_export_draws_and_writes_and_compares(run, exported, quick, inside):
    code, out, err = run("bench", exported, "--batch", "1,2", "--seconds", "0.001", "--threads", 1, "--json", "a.json")
    assert code == 0 and "written  a.json" in err
    assert "encoder, inputs and outputs on the device" in out and "round trip, numpy in, numpy out" in out
    assert "over eager" not in out
    code, out, _ = run("bench", "--compare", "a.json", "a.json")
    assert code == 0 and "0 rows changed by more than their spread, 12 did not; 0 are in one file alone" in out
    told = json.loads(Path("a.json").read_text())
    told["rows"][0] |= {"p25": 1e3, "p50": 1e3, "p75": 1e3}
    told["environment"]["cores"] = 99
    Path("b.json").write_text(json.dumps(told))
    out = run("bench", "--compare", "a.json", "b.json")[1]
    assert "1 rows changed" in out and "slower" in out and "-> 99" in out


def test_bench_writes_its_json_on_stdout_alone(run, exported, quick, inside):
    code, out, _ = run("bench", exported, "--batch", "1", "--seconds", "0.001", "--json", "-")
    assert code == 0 and json.loads(out)["model"]["weights"] == "exported"


def test_bench_of_a_model_without_a_run_takes_it_untrained(run, quick, inside):
    code, out, err = run("bench", "mlp-vae", "--batch", "1", "--seconds", "0.001")
    assert code == 0, err
    assert "vaezoo/mlp-vae 1x28x28, untrained" in out and "over best" in out and "compile" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["bench", "nothing"], 3, "there is no run 'nothing'"),
        (["bench"], 3, "no run in runs/"),
        (["bench", "mlp-vae", "--batch", "1,0"], 2, "'0' is no batch size"),
        (["bench", "mlp-vae", "--batch", "1;8"], 2, "'1;8' is no batch size"),
        (["bench", "mlp-vae", "--device", "tpu"], 2, "tpu"),
        (["bench", "--compare", "a.json", "b.json"], 3, "cannot read a.json"),
        (["bench", "mlp-vae", "--compare", "a.json", "b.json"], 2, "'mlp-vae' is a third"),
        (["bench", "mlp-vae", "--tf32"], 2, "tf32 is of CUDA"),
        (["export", "--onnx", "--opset", "17"], 2, "opset 17 is out of range"),
        (["export", "--onnx", "--dtype", "int8"], 2, "int8"),
        (["verify", ".", "--provider", "tensorrt"], 2, "tensorrt"),
        (["verify", "."], 3, "is no export"),
    ],
)
def test_wrong_words_are_two_lines_and_a_code(run, inside, arguments, code, words):
    got, out, err = run(*arguments)
    assert got == code and out == "" and words in err
    assert err.splitlines()[-1].startswith("hint: ")
    assert list(Path().iterdir()) == []


def test_cuda_that_is_not_there_is_an_error(run, exported, inside):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    for command in (["verify", exported, "--provider", "cuda"], ["bench", exported, "--device", "cuda"]):
        code, out, err = run(*command)
        assert code == 2 and out == "" and ("libcuda.so.1" in err or "no CUDA provider" in err)


def test_doctor_tells_what_loads(run):
    code, out, _ = run("doctor")
    assert code == 0 and "loads and runs" in out and "onnxruntime on cuda" in out
    findings = {f["subject"]: f for f in json.loads(run("doctor", "--json")[1])}
    assert findings["onnxruntime on cpu"]["state"] == "loads and runs"
