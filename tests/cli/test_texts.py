"""Texts on the command line, from a file to an export: each command takes them through the tokenizer of the run."""

import csv
import json

import numpy as np
import pytest

from vaezoo import load, runtime
from vaezoo_cli.main import main

NAMES = ["anna", "bob", "carla", "dora", "emil", "fritz", "gina", "hans", "ida", "jo", "karl", "lena"] * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "corpus.txt").write_text("\n".join(NAMES))
    options = ["-o", "hidden=16", "-o", "layers=1", "-o", "latent_dim=2"]
    arguments = ["--data", folder / "corpus.txt", "--steps", 20, "--batch-size", 20, *options, "--out", folder / "run"]
    for command in (
        ["train", "sentence-vae", *arguments],
        ["export", folder / "run", "--onnx", "--out", folder / "export"],
    ):
        with pytest.raises(SystemExit) as e:
            main([str(a) for a in command])
        assert e.value.code == 0
    return folder


@pytest.fixture(params=["run", "export"])
def source(request, folder):
    return folder / request.param


def test_a_run_and_its_export_keep_the_tokenizer(folder):
    run, export = load(folder / "run"), runtime.load(folder / "export")
    tokenizer = run.data.make_tokenizer()
    assert export.tokenizer == tokenizer and tokenizer.name == "characters"
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["tokenizer_sha256"] == tokenizer.sha256
    ids = export.tokenizer.to_ids(["anna", "xy"], 6)
    assert ids[1].tolist() == [2, 2, 1, 0, 0, 0] and export.tokenizer.to_texts(ids) == ["anna", "\ufffd\ufffd"]


def test_texts_are_encoded(source, run_ok, tmp_path):
    run_ok("encode", source, "--text", "anna", "--text", "bob", "--out", tmp_path / "z.npz")
    (tmp_path / "two.txt").write_text("anna\n\nbob\n")
    run_ok("encode", source, "--data", tmp_path / "two.txt", "--out", tmp_path / "again.npz")
    first, second = np.load(tmp_path / "z.npz"), np.load(tmp_path / "again.npz")
    np.testing.assert_array_equal(first["mu"], second["mu"])
    assert second["name"].tolist() == ["two.txt:1", "two.txt:3"]


def test_texts_are_printed(source, run_ok, tmp_path):
    lines = run_ok("reconstruct", source, "--text", "anna", "--text", "bob").splitlines()
    assert len(lines) == 2 and set("".join(lines)) <= set("".join(NAMES)) | {"\ufffd"}
    lines = run_ok("sample", source, "-n", 5, "--seed", 3).splitlines()
    run_ok("sample", source, "-n", 5, "--seed", 3, "--out", tmp_path / "a.txt")
    assert len(lines) == 5 and (tmp_path / "a.txt").read_text("utf-8").splitlines() == lines


def test_texts_are_scored_and_evaluated(source, run_ok, tmp_path):
    (tmp_path / "table.csv").write_text("n,name\n1,anna\n2,zzzzz\n")
    rows = list(
        csv.DictReader(run_ok("score", source, "--data", tmp_path / "table.csv", "--column", "name").splitlines())
    )
    assert [row["name"] for row in rows] == ["table.csv:2", "table.csv:3"]
    assert float(rows[0]["neg_elbo"]) < float(rows[1]["neg_elbo"])
    report = json.loads(run_ok("eval", source, "--data", tmp_path / "table.csv", "--column", "name", "--json"))
    assert report["examples"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "annabella"], "'annabella' has 10 ids, more than 6"),
        (["--text", "a", "--data", "names"], "--text and --data both name the examples"),
        (["--data", "names"], "but the model was made for"),
        (["--data", "corpus.txt", "--column", "name"], "has no columns"),
    ],
)
def test_wrong_texts_are_refused(arguments, message, folder, run, monkeypatch):
    monkeypatch.chdir(folder)
    code, _, err = run("encode", folder / "run", *arguments, "--out", "z.npz")
    assert code and message in err and "hint" in err and not (folder / "z.npz").exists()


def test_long_texts_are_cut_on_request(folder, run, tmp_path):
    code, _, err = run(
        "encode", folder / "run", "--text", "annabella", "--on-long-text", "cut", "--out", tmp_path / "z.npz"
    )
    assert code == 0 and "1 of 1 texts have more than 6 ids and are cut" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokenizer", "letters"], "no tokenizer named 'letters'"),
        (["--length", 3], "has 5 ids, more than 3"),
        (["--column", "name"], "has no columns"),
        (["--image-size", 8], "has no images"),
        (["--likelihood", "bernoulli"], "is not for data of kind"),
    ],
)
def test_wrong_options_of_texts_are_refused(arguments, message, folder, run, tmp_path):
    code, _, err = run("train", "sentence-vae", "--data", folder / "corpus.txt", *arguments, "--out", tmp_path / "r")
    assert code and message in err and not (tmp_path / "r").exists()


def test_a_changed_tokenizer_is_found(folder, run, tmp_path):
    import shutil

    copy = shutil.copytree(folder / "run", tmp_path / "run")
    text = (copy / "run.json").read_text()
    record = json.loads(text)
    symbols = record["data"]["symbols"]
    symbols[3], symbols[4] = symbols[4], symbols[3]
    (copy / "run.json").write_text(json.dumps(record))
    code, _, err = run("sample", copy)
    assert code and "the symbols of its tokenizer have changed" in err


def test_ids_are_chosen_by_options(source, run_ok):
    greedy = run_ok("sample", source, "-n", 4, "--temperature", 0)
    assert greedy == run_ok("sample", source, "-n", 4, "--top-k", 1) != run_ok("sample", source, "-n", 4)
    assert run_ok("sample", source, "-n", 4, "--beam", 1) == greedy
    texts = ["--text", "anna", "--text", "emil"]
    assert run_ok("reconstruct", source, *texts) == run_ok("reconstruct", source, *texts, "--beam", 1)
    drawn = {run_ok("reconstruct", source, *texts, "--temperature", 2, "--seed", seed) for seed in (1, 1, 2)}
    assert len(drawn) == 2
    assert len(run_ok("reconstruct", source, *texts, "--beam", 5).splitlines()) == 2


def test_a_run_and_its_export_search_alike(folder, run_ok):
    texts = [argument for name in NAMES[:8] for argument in ("--text", name)]
    first, second = (run_ok("reconstruct", folder / name, *texts, "--beam", 4) for name in ("run", "export"))
    assert first == second


def test_texts_lie_between_two_texts(folder, run_ok, run, tmp_path):
    lines = run_ok("plot", folder / "run", "--kind", "interpolation", "--text", "anna", "--text", "fritz").splitlines()
    assert len(lines) == 11 and (lines[0], lines[-1]) == ("anna", "fritz")
    run_ok("plot", folder / "run", "--kind", "interpolation", "-n", 2, "--out", tmp_path / "a.txt")
    lines = (tmp_path / "a.txt").read_text().splitlines()
    assert len(lines) == 2 * 11 + 1 and {lines[0], lines[10], lines[12], lines[22]} <= set(NAMES)
    code, _, err = run("plot", folder / "run", "--kind", "interpolation", "--text", "anna")
    assert code and "1 texts cannot be paired" in err
    code, _, err = run("plot", folder / "run", "--kind", "interpolation", "--out", tmp_path / "a.png")
    assert code and "cannot write" in err


def test_perplexities_follow_from_the_bound(folder, run_ok):
    report = json.loads(run_ok("eval", folder / "run", "--metrics", "elbo,nll", "--nll-samples", 5, "--json"))
    values = {metric["name"]: metric["value"] for metric in report["metrics"]}
    data = load(folder / "run").load_data()
    texts = data.spec.make_tokenizer().to_texts(data.valid.x.numpy())
    letters = np.mean([len(text) + 1 for text in texts])
    for name in ("-ELBO", "NLL-5"):
        assert values[f"{name} perplexity per character"] == pytest.approx(np.exp(values[name] / letters))
        assert values[f"{name} perplexity per id"] == pytest.approx(np.exp(values[name] / letters))
        assert values[f"{name} perplexity per word"] == pytest.approx(np.exp(values[name] / 2))
