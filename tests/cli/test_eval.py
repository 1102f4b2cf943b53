"""vaezoo eval."""

import json

import pytest

SMALL = ("--limit", 50, "--elbo-samples", 2)


@pytest.fixture
def evaluated(trained, run):
    """Returns a function that evaluates a small run: the JSON output."""

    def evaluated(*arguments):
        code, out, err = run("eval", trained.path, *SMALL, *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return evaluated


def test_table_equals_json(trained, run, evaluated):
    result = evaluated()
    code, out, _ = run("eval", trained.path, *SMALL)
    assert code == 0 and "50 of 2,000 examples" in out
    for metric in result["metrics"][:3]:
        assert f"{metric['value']:.2f} ± {metric['error']:.2f}" in out and metric["protocol"] in out
    assert result["config"] == {"binarize": "none", "nll_samples": 5000, "elbo_samples": 2, "seed": 0}


def test_nll_samples_add_nll(evaluated):
    names = [metric["name"] for metric in evaluated("--nll-samples", 7)["metrics"]]
    assert "NLL-7" in names and "-ELBO" in names
    assert evaluated("--metrics", "nll", "--nll-samples", 7)["metrics"][0]["name"] == "NLL-7"


def test_fid_names_floor_and_features(evaluated):
    distance, floor = evaluated("--metrics", "fid", "--limit", 100)["metrics"]
    assert distance["value"] > floor["value"] > 0
    assert "(mnist-lenet64 " in distance["name"] and "of training examples" in floor["name"]


def test_lpips_names_its_network(evaluated, trained, run):
    """It is in the table and in the JSON, and compare has a column for it."""
    (metric,) = evaluated("--metrics", "lpips")["metrics"]
    assert metric["name"] == "perceptual distance (mnist-lenet64 b7b6fa37)" and 0 < metric["value"] < 4
    code, out, err = run("compare", trained.path, "--json")
    assert code == 0 and f"eval {metric['name']} of 50 examples" in json.loads(out)["metrics"], err


def test_inception_file_is_checked(trained, run, inside):
    (inside / "weights.pth").write_bytes(b"none")
    code, _, err = run("eval", trained.path, *SMALL, "--inception", "weights.pth")
    assert code == 3 and "weights.pth" in err and len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("--metrics", "frechet"), 2, "no metric named 'frechet'"),
        (("--metrics", ""), 2, "no metrics given"),
        (("--metrics", "fid", "--limit", 64), 2, "have no Frechet distance"),
        (("--inception", "nowhere.pth"), 3, "nowhere.pth"),
        (("--metrics", "lpips", "--vgg", "a.pth"), 2, "--vgg needs --lpips as well"),
        (("--vgg", "nowhere.pth", "--lpips", "nowhere.pth"), 3, "nowhere.pth"),
        (("--vgg", "a", "--lpips", "a", "--vgg-sha256", "12"), 2, "vgg_sha256 is '12'"),
        (("--nll-samples", 0), 2, "the number of samples of z for each example is 0"),
        (("--data", "penguins"), 2, "shape"),
        (("--part", "tset"), 2, "no part named 'tset'"),
        (("--data", "nowhere"), 2, "nowhere"),
    ],
)
def test_invalid_input_is_refused(arguments, code, error, trained, run):
    actual, _, err = run("eval", trained.path, *arguments)
    assert actual == code and error in err and len(err.splitlines()) == 2


def test_metrics_are_checked_first(run, tmp_path):
    code, _, err = run("eval", "mlp-vae-mnist", "--metrics", "reconstruction", "--data-dir", tmp_path / "none")
    assert (code, err.splitlines()[1:]) == (2, ["hint: did you mean 'reconstructions'?"])


def test_export_equals_run(run, inside):
    run("train", "mlp-vae", "--steps", 1, "--out", "r")
    run("export", "r", "--onnx", "--out", "e")
    results = [json.loads(run("eval", source, *SMALL, "--json")[1]) for source in ("r", "e")]
    assert [r["data"] for r in results] == ["digits", "digits"]
    first, second = (r["metrics"][0]["value"] for r in results)
    assert first == pytest.approx(second, rel=1e-5)
