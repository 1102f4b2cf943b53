"""vaezoo sweep and vaezoo compare."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SWEEP = ("sweep", "mlp-vae", "--data", "x.npy", "--batch-size", 20, "--epochs", 2, "-o", "hidden=8", "--out", "s")


@pytest.fixture
def swept(run, inside):
    np.save("x.npy", np.random.default_rng(0).random((120, 6), np.float32))
    code, out, err = run(*SWEEP, "-o", "objective.beta=1,4", "--seed", "0,1")
    assert code == 0, err
    return out, err


def test_sweep_prints_the_table(swept, run):
    out, err = swept
    head, *rows = out.splitlines()[:3]
    assert head.split()[:5] == ["runs", "objective.beta", "elbo", "reconstruction", "kl"]
    assert [row.split()[:3] for row in rows] == [["2", "runs", "1.0"], ["2", "runs", "4.0"]] and "±" in rows[0]
    assert "4 of 4: objective.beta=4,seed=1 done" in err and "vaezoo compare s" in out
    assert sorted(p.name for p in Path("s").iterdir() if p.is_dir())[0] == "objective.beta=1,seed=0"
    code, again, err = run(*SWEEP, "-o", "beta=1,4", "--seed", "0,1")
    assert code == 0 and again == out and "epoch" not in err  # nothing is trained again


def test_lists_are_separated_by_semicolons(run, inside):
    np.save("x.npy", np.random.default_rng(0).random((120, 6), np.float32))
    arguments = [a for a in SWEEP if a not in ("-o", "hidden=8")]
    assert run(*arguments, "-o", "hidden=8,4;8", "-o", "latent_dim=2")[0] == 0
    names = sorted(p.name for p in Path("s").iterdir() if p.is_dir())
    assert names == ["hidden=8", "hidden=8-4"]
    assert json.loads(Path("s/hidden=8-4/run.json").read_text())["options"]["hidden"] == [8, 4]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "nothing varies in this sweep"),
        (("--lr", "1,0"), "--lr is 0"),
        (("--lr", "1,x"), "--lr takes a number, not 'x'"),
        (("-o", "latent_dim=1,x"), "option 'latent_dim' takes an integer, not 'x'"),
    ],
)
def test_wrong_grids_are_refused(arguments, error, run, inside):
    np.save("x.npy", np.random.default_rng(0).random((120, 6), np.float32))
    code, _, err = run(*SWEEP, *arguments)
    assert code == 2 and error in err and not Path("s").exists()


def test_compare_prints_what_differs(swept, run, run_ok):
    assert run("eval", "s/objective.beta=1,seed=0", "--elbo-samples", 2)[0] == 0
    rows = list(csv.DictReader(io.StringIO(run_ok("compare", "s", "--csv"))))
    assert [row["objective.beta"] for row in rows] == ["1.0", "4.0"] and rows[0]["runs"] == "2"
    assert float(rows[0]["eval -ELBO"]) > 0 and rows[1]["eval -ELBO"] == ""
    table = json.loads(run_ok("compare", "s", "--metric", "kl", "--json"))
    assert table["metrics"] == ["kl"] and table["groups"][0]["metrics"]["kl"]["n"] == 2
    assert float(rows[0]["kl"]) == pytest.approx(table["groups"][0]["metrics"]["kl"]["mean"])
    runs = ("s/objective.beta=1,seed=0", "s/objective.beta=4,seed=0")
    for arguments in (runs, (*runs, runs[0])):  # a run that is named twice counts once
        assert [line.split()[:2] for line in run_ok("compare", *arguments, "--metric", "kl").splitlines()] == [
            ["runs", "objective.beta"],
            [runs[0], "1.0"],
            [runs[1], "4.0"],
        ]
    code, _, err = run("compare", "s", "--csv", "--json")
    assert code == 2 and "both say what to print" in err


def test_compare_draws_curves(swept, run):
    pytest.importorskip("matplotlib")
    code, out, err = run("compare", "s", "--out", "c.png")
    assert code == 0 and "written  c.png" in err and "objective.beta" in out
    colours = Image.open("c.png").convert("RGB").getcolors(1 << 24)
    assert {(31, 119, 180), (255, 127, 14)} <= {colour for _, colour in colours}  # a colour for each group
    for folder in Path("s").glob("objective.beta=4*"):
        (folder / "metrics.jsonl").unlink()  # as in a run whose prior was fitted without training steps
    assert run("compare", "s", "--out", "d.png")[0] == 0 and Path("d.png").exists()
    code, _, err = run("compare", "s/objective.beta=4,seed=0", "--out", "e.png")
    assert code == 2 and "none of the runs has learning curves" in err
    code, _, err = run("compare", "s", "--out", "c.jpg")
    assert code == 2 and "the format must be PNG" in err


def test_wide_table_has_a_column_for_each_run(swept, run_ok, monkeypatch):
    runs = ("s/objective.beta=1,seed=0", "s/objective.beta=4,seed=0")
    monkeypatch.setattr("vaezoo_cli.render.console.OUT._width", 80)
    lines = [line.split() for line in run_ok("compare", *runs).splitlines()]
    assert lines[0] == ["runs", *runs] and lines[1] == ["objective.beta", "1.0", "4.0"]


def test_failed_cell_gives_an_exit_code(run, inside):
    np.save("x.npy", np.random.default_rng(0).random((120, 6), np.float32))
    code, out, err = run(*SWEEP, "-o", "objective.beta=-1,1")
    assert code == 4 and "failed      objective.beta=-1" in out and "1.0" in out, err
