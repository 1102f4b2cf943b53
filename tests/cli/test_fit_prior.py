"""vaezoo fit-prior: a new run, whose prior every command uses."""

import json

import numpy as np
import pytest

import vaezoo


@pytest.fixture
def first(run_ok, inside):
    """A run on vectors in the folder `first`."""
    rng = np.random.default_rng(0)
    np.save("x.npy", (5 + rng.standard_normal((200, 2)) @ rng.standard_normal((2, 6))).astype(np.float32))
    options = ("-o", "latent_dim=2", "-o", "hidden=16", "--steps", 20, "--batch-size", 20)
    run_ok("train", "mlp-vae", "--data", "x.npy", "--scale", "standardize", *options, "--out", "first")


def test_fit_sample_eval(first, run, run_ok):
    code, out, err = run("fit-prior", "first", "--kind", "gmm", "-o", "components=3", "--out", "second", "--seed", 1)
    assert code == 0, err
    assert "-ELBO with the prior of" in out
    assert "log p(z)" in out and "written  second/" in out and "vaezoo sample second" in out
    assert run_ok("sample", "second", "-n", 5, "--out", "s.npy").strip() == "s.npy"
    x = np.load("s.npy")
    assert x.shape == (5, 6) and abs(x.mean() - 5) < 2  # in the units of the data
    evaluated = json.loads(run_ok("eval", "second", "--nll-samples", 5, "--limit", 10, "--json"))
    assert {metric["name"] for metric in evaluated["metrics"]} >= {"NLL-5", "-ELBO"}


def test_json_and_default_folder(first, run_ok, run):
    result = json.loads(run_ok("fit-prior", "first", "--kind", "flow", "--steps", 6, "-o", "hidden=4", "--json"))
    assert result["run"] == "runs/mlp-vae-x-flow-1"
    assert result["prior"]["kind"] == "flow" and result["prior"]["options"] == {"couplings": 8, "hidden": 4}
    assert result["result"]["metrics"]["log_prior"] < 0
    same = vaezoo.fit_prior("first", "flow", steps=6, options={"hidden": 4}, out="same")
    assert same.checkpoint.model_sha256 == vaezoo.load(result["run"]).checkpoint.model_sha256
    code, _, err = run("fit-prior", "first", "--kind", "flow", "--steps", 6, "-o", "hidden=4")
    assert code == 0 and "6 steps on" in err
    assert run_ok("train", "--resume", "runs/mlp-vae-x-flow-2")  # it is finished


@pytest.mark.parametrize(
    ("code", "arguments", "error", "hint"),
    [
        (2, ("--kind", "gnm"), "no kind of prior named 'gnm'", "did you mean 'gmm'?"),
        (2, ("-o", "components=0"), "'components' is 0", "at least 1"),
        (2, ("-o", "components=500"), "too many for", "at most"),
        (2, ("--steps", 3), "--steps has no effect on kind gmm", "leave it out"),
        (2, ("--kind", "vae", "--batch-size", 0), "--batch-size is 0", "give --batch-size at least 1"),
        (2, ("--codes", "modes"), "no codes named 'modes'", "draws or means"),
        (2, ("--kind", "exemplar", "--codes", "means"), "--codes has no effect on kind exemplar", "leave it out"),
        (5, ("--out", "first"), "first exists and is not empty", "another folder"),
        (3, ("--data", "y.npy"), "the data are not those", "restore them"),
    ],
)
def test_bad_input(first, run, inside, code, arguments, error, hint):
    np.save("y.npy", np.zeros((200, 6), np.float32))
    before = sorted(inside.rglob("*"))
    actual, out, err = run("fit-prior", "first", *arguments)
    lines = err.splitlines()
    assert (actual, out, len(lines)) == (code, "", 2), err
    assert error in lines[0] and hint in lines[1]
    assert sorted(inside.rglob("*")) == before


def test_prior_of_another_run(first, run, run_ok, inside):
    """Its weights are refused beside those of another first stage."""
    run_ok(
        "train",
        "mlp-vae",
        "--data",
        "x.npy",
        "--scale",
        "standardize",
        "-o",
        "latent_dim=2",
        "-o",
        "hidden=16",
        "--steps",
        20,
        "--batch-size",
        20,
        "--seed",
        1,
        "--out",
        "other",
    )
    for source in ("first", "other"):
        run_ok("fit-prior", source, "--kind", "kde", "--out", f"{source}-kde")
    records = [json.loads((inside / f"{name}-kde" / "run.json").read_text()) for name in ("first", "other")]
    (inside / "first-kde" / "run.json").write_text(json.dumps(records[0] | {"prior": records[1]["prior"]}))
    for command in (
        ("sample", "first-kde", "--out", "s.npy"),
        ("eval", "first-kde"),
        ("export", "first-kde", "--onnx"),
    ):
        code, out, err = run(*command)
        lines = err.splitlines()
        assert (code, out, len(lines)) == (3, "", 2), err
        assert "was fitted for another model" in lines[0] and "vaezoo fit-prior" in lines[1]
    assert not (inside / "s.npy").exists() and not (inside / "exports").exists()


def test_exports_have_no_codes(exported, run):
    code, _, err = run("fit-prior", exported.path)
    assert code == 2 and "is an export, not a run" in err


def test_kind_is_checked_before_data_are_loaded(inside, run, tmp_path):
    """The data of a pretrained model would be downloaded, which takes minutes."""
    code, _, err = run("fit-prior", "conv-vae-mnist", "--kind", "autoregressive", "--data-dir", tmp_path / "none")
    assert code == 2 and "is for grids of codes" in err
