"""`vaezoo eval` as users type it."""

import json

import pytest

SMALL = ("--limit", 50, "--elbo-samples", 2)


@pytest.fixture
def evaluated(trained, run):
    """Returns a function that evaluates a small run: its JSON."""

    def evaluated(*arguments):
        code, out, err = run("eval", trained.path, *SMALL, *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return evaluated


def test_the_table_says_what_the_json_does(trained, run, evaluated):
    told = evaluated()
    code, out, _ = run("eval", trained.path, *SMALL)
    assert code == 0 and "50 of 2,000 examples" in out
    for figure in told["metrics"][:3]:
        assert f"{figure['value']:.2f} ± {figure['error']:.2f}" in out and figure["protocol"] in out
    assert told["config"] == {"binarize": "none", "nll_samples": 5000, "elbo_samples": 2, "seed": 0}


def test_samples_ask_for_the_likelihood(evaluated):
    names = [figure["name"] for figure in evaluated("--nll-samples", 7)["metrics"]]
    assert "NLL-7" in names and "-ELBO" in names
    assert evaluated("--metrics", "nll", "--nll-samples", 7)["metrics"][0]["name"] == "NLL-7"


def test_the_frechet_distance_comes_with_its_floor_and_the_features_name(evaluated):
    distance, floor = evaluated("--metrics", "fid", "--limit", 100)["metrics"]
    assert distance["value"] > floor["value"] > 0
    assert "(mnist-lenet64 " in distance["name"] and "of training examples" in floor["name"]


def test_a_file_of_inceptions_weights_asks_for_the_frechet_distance_and_must_be_the_right_one(trained, run, inside):
    (inside / "weights.pth").write_bytes(b"none")
    code, _, err = run("eval", trained.path, *SMALL, "--inception", "weights.pth")
    assert code == 3 and "weights.pth" in err and len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("--metrics", "fid"), 2, "no metric named 'fid'"),
        (("--metrics", ""), 2, "no metrics are asked for"),
        (("--metrics", "fid", "--limit", 64), 2, "have no Frechet distance"),
        (("--inception", "nowhere.pth"), 3, "nowhere.pth"),
        (("--nll-samples", 0), 2, "0 latents for each example are none"),
        (("--data", "shapes"), 2, "shape"),
        (("--data", "nowhere"), 2, "nowhere"),
    ],
)
def test_bad_input_is_two_lines_and_a_code(arguments, code, error, trained, run):
    found, _, err = run("eval", trained.path, *arguments)
    assert found == code and error in err and len(err.splitlines()) == 2


def test_a_misspelt_metric_is_told_before_data_are_looked_for(run, tmp_path):
    code, _, err = run("eval", "mlp-vae-mnist", "--metrics", "reconstruction", "--data-dir", tmp_path / "none")
    assert (code, err.splitlines()[1:]) == (2, ["hint: did you mean 'reconstructions'?"])


def test_an_export_is_evaluated_on_the_data_it_was_trained_on(run, inside):
    run("train", "mlp-vae", "--steps", 1, "--out", "r")
    run("export", "r", "--onnx", "--out", "e")
    told = [json.loads(run("eval", source, *SMALL, "--json")[1]) for source in ("r", "e")]
    assert [t["data"] for t in told] == ["digits", "digits"]
    first, second = (t["metrics"][0]["value"] for t in told)
    assert first == pytest.approx(second, rel=1e-5)
