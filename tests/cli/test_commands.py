"""The commands from train to export: what they print and write."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_models import image_models
from members import MEMBERS
from PIL import Image

import vaezoo
from vaezoo import load
from vaezoo.testing import CHECKS
from vaezoo_cli.main import main
from vaezoo_cli.render import console

MODELS = image_models()
FAST, SLOW = {("mlp-vae", "digits"), ("conv-vae", "colour")}, {("cvae", "digits"), ("vq-vae", "colour")}
CASES = [
    pytest.param(
        model,
        data,
        marks=[] if (model, data) in FAST else pytest.mark.slow if (model, data) in SLOW else pytest.mark.matrix,
    )
    for model in MODELS
    for data in ("digits", "colour")
]
LIGHT = (["--help"], ["list"], ["list", "--json"], ["train", "--help"], ["pretrained"])


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """A folder of 60 small colour images in two classes."""
    root = tmp_path_factory.mktemp("colour")
    rng = np.random.default_rng(0)
    for i in range(60):
        folder = root / ("train" if i < 48 else "test") / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.mark.parametrize(("name", "data"), CASES)
def test_train_draw_export(name, data, run_ok, colour, inside):
    path = colour if data == "colour" else data
    options = MEMBERS[name].options or {"latent_dim": 4}
    flags = [text for option, value in options.items() for text in ("-o", f"{option}={value}")]
    out = run_ok("train", name, "--data", path, "--steps", 3, "--batch-size", 16, *flags, "--out", "r")
    assert "-ELBO" in out and "vaezoo export r --onnx" in out
    assert run_ok("sample", "r").strip() == "r/samples.png"
    assert run_ok("reconstruct", "r", "-n", 10).strip() == "r/reconstructions.png"
    mode = "RGB" if data == "colour" else None
    for image in ("samples", "reconstructions"):
        with Image.open(f"r/{image}.png") as image:
            assert image.width > 200 and (mode is None or image.mode == mode)
    manifest = json.loads(run_ok("export", "r", "--onnx", "--json"))
    assert manifest["folder"] == "exports/r" and Path("exports/r/decoder.onnx").exists()


@pytest.mark.slow
def test_train_prints_plain_lines(run, inside):
    code, out, err = run("train", "mlp-vae", "--epochs", 2, "--batch-size", 500)
    assert code == 0
    lines = [line for line in err.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2 and all(w in lines[0] for w in ("-ELBO", "reconstruction", "KL", "images/s", "left"))
    losses = [float(line.split("-ELBO ")[1].split()[0]) for line in lines]
    assert losses[1] < losses[0]
    assert "\x1b" not in err + out
    for command in ("vaezoo sample", "vaezoo reconstruct", "vaezoo export"):
        assert f"{command} runs/mlp-vae-digits-1" in out


def test_names_of_classes(run, run_ok, inside):
    for folder, count in (("training/cat", 12), ("training/dog", 8), ("testing/cat", 2), ("testing/dog", 2)):
        (inside / "D" / folder).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(inside / "D" / folder / f"{i:02}.png")
    code, _, err = run("train", "cvae", "--data", "D", "--steps", "2", "--batch-size", "4", "--out", "out")
    assert code == 0
    lines = err.splitlines()
    assert "data     18 training, 2 validation, 4 test examples" in lines
    assert "classes  2: cat (10), dog (8) training examples" in lines
    for label in ("dog", "1"):
        run_ok("sample", "out", "--label", label, "--out", f"{label}.png")
    assert (inside / "dog.png").read_bytes() == (inside / "1.png").read_bytes()
    trained_run = load("out")
    assert np.array_equal(trained_run.sample(3, label="dog"), trained_run.sample(3, y=np.ones(3, np.int64)))
    code, _, err = run("sample", "out", "--label", "dogg")
    assert code == 2 and "unknown label 'dogg'" in err and "did you mean 'dog'?" in err
    run_ok("plot", "out", "--kind", "attribute-vector", "--label", "dog", "-n", "2")
    code, _, err = run("plot", "out", "--kind", "attribute-vector", "--label", "emu")
    assert code == 2 and "no example has label emu" in err and "'cat', 'dog'" in err
    run_ok("plot", "out", "--kind", "latents")
    assert json.loads((inside / "out" / "run.json").read_text())["data"]["class_names"] == ["cat", "dog"]


def test_settings_reach_the_run(run_ok, inside):
    settings = ("--optimizer", "adamw", "--weight-decay", "0.1", "--schedule", "multistep", "--milestones", "1,2")
    out = run_ok(
        "train", "mlp-vae", "--steps", 3, *settings, "--clip-grad", 5, "--likelihood", "gaussian:0.5", "--json"
    )
    result = json.loads(out)
    training = json.loads((Path(result["run"]) / "run.json").read_text())["training"]
    assert (training["optimizer"], training["milestones"], training["clip_grad"]) == ("adamw", [1, 2], 5.0)
    assert result["data"]["likelihood"] == "gaussian:0.5"
    assert result["result"]["split"] == "test"


@pytest.mark.slow
def test_a_score_is_named_as_such(run, inside):
    """A training with a score claims no nats and no ELBO, and commands that need a likelihood refuse it."""
    code, out, err = run("train", "mlp-vae", "--steps", 2, "--likelihood", "log-cosh", "-o", "beta=0.1", "--out", "r")
    assert code == 0 and "score + KL" in out and "nats" not in out
    assert "log-cosh is not a likelihood" in err and "ELBO" not in out + err
    code, out, _ = run("eval", "r", "--limit", 20)
    assert code == 0 and "reconstruction score" in out and "ELBO" not in out
    assert run("plot", "r", "--kind", "learning-curves")[0] == 0
    for arguments, words in (
        (("eval", "r", "--metrics", "nll", "--limit", 2), "likelihood 'log-cosh' is a score of reconstructions"),
        (("score", "r"), "so the model has no ELBO"),
        (("sample", "r", "--draw", "--out", "x.npy"), "likelihood 'log-cosh' is a score, not a distribution"),
        (("train", "iwae", "--steps", 1, "--likelihood", "log-cosh"), "objective=iwae needs a likelihood"),
    ):
        code, _, err = run(*arguments)
        assert code == 2 and words in err and "hint:" in err


@pytest.mark.slow
def test_names_mean_newest_run(run_ok, inside):
    run_ok("train", "mlp-vae", "--steps", 1)
    run_ok("train", "conv-vae", "--steps", 1)
    os.utime("runs/mlp-vae-digits-1/run.json", ns=(1, 1))
    assert run_ok("sample").strip() == "runs/conv-vae-digits-1/samples.png"
    assert run_ok("sample", "mlp-vae").strip() == "runs/mlp-vae-digits-1/samples.png"
    run_ok("export", "--onnx")
    assert Path("exports/conv-vae-digits-1/manifest.json").exists()


def test_seed_determines_samples(run_ok, trained, inside):
    for out, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        run_ok("sample", trained.path, "--seed", seed, "--out", out)
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_list_and_show(run_ok):
    listed = json.loads(run_ok("list", "--json"))
    assert {row["name"] for row in listed["models"]} >= set(MODELS) and "digits" in listed["data"]
    parts = {row["name"]: [row[part] for part in ("posterior", "prior", "objective")] for row in listed["models"]}
    assert parts["s-vae"] == ["vmf", "sphere", "elbo"] and parts["wae"] == ["delta", "zero-kl", "mmd"]
    assert parts["vq-vae"] == ["codes", "uniform codes", "vq"]
    shown = json.loads(run_ok("show", "beta-vae", "--json"))
    assert [shown[part] for part in ("posterior", "prior", "objective")] == parts["beta-vae"]
    assert {o["name"]: o["default"] for o in shown["options"]}["beta"] == 4.0
    inputs = {tuple(row["shape"]): row["parameters"] for row in shown["inputs"]}
    assert inputs[(100,)] is None
    # 1-32-64 channels, 4x4: 32*16+32, 64*32*16+64, 3136*32+32.
    assert inputs[(1, 28, 28)]["encoder"] == 544 + 32_832 + 100_384
    text = run_ok("list") + run_ok("show", "vae-gan")
    assert "Larsen" in text and "gamma" in text and "discriminator" in text


@pytest.mark.parametrize("width", [80, 200])
def test_list_shows_parts_at_any_width(run_ok, monkeypatch, width):
    monkeypatch.setattr(console.OUT, "width", width)
    lines = run_ok("list").splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split()[:4] == ["model", "posterior", "prior", "objective"]
    assert any(line.split()[:4] == ["swae", "delta", "zero-kl", "sliced-wasserstein"] for line in lines)
    assert any("Latents in" in line or "Wrapped normal latents in the" in line for line in lines)


def test_output_shows_a_folder_as_it_is(run_ok, inside):
    assert "written  :key:/\n" in run_ok("train", "mlp-vae", "--steps", "1", "--out", ":key:")


def test_show_counts_each_kind_of_input(run_ok):
    def supported(model):
        return {r["input"] for r in json.loads(run_ok("show", model, "--json"))["inputs"] if r["parameters"]}

    assert {"1x28x28", "table of 7 columns", "text of 16 ids of 28"} <= supported("mlp-vae")
    assert {"1x28x28 and 10 classes", "vector of 100 and 10 classes"} <= supported("cvae")
    assert supported("sentence-vae") == {"text of 16 ids of 28"}
    assert "not supported: 1x28x28, 3x32x32" in run_ok("show", "sentence-vae")


def test_show_follows_options(run_ok):
    small = json.loads(run_ok("show", "mlp-vae", "-o", "hidden=10", "--json"))["inputs"][0]["parameters"]
    assert small["encoder"] == 784 * 10 + 10 + 10 * 40 + 40


@pytest.mark.slow
def test_check_passes_on_built_in(run_ok):
    results = json.loads(run_ok("check", "mlp-vae", "--json"))
    assert len(results) == len(CHECKS) and not [r for r in results if r["failure"]]
    assert [r["check"] for r in results if not r["passed"]] == ["autoregressive", "labels", "sizes"]  # skipped


def test_each_command_has_help(run_ok):
    text = run_ok("--help")
    for command in ("list", "show", "train", "sample", "reconstruct", "plot", "export", "new-plugin", "check"):
        assert command in text
        assert "Usage: vaezoo " + command in run_ok(command, "--help")


def test_help_has_defaults_and_texts(run_ok):
    text = " ".join(run_ok("train", "--help").split())
    assert "--kl-warmup INTEGER Anneal the KL weight from 0 to 1 over this many steps. [default: 0]" in text
    assert "--optimizer [adam|adamw|rmsprop|adamax]" in text and "--milestones INTEGER,..." in text


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_light_commands_import_no_torch(arguments):
    code = (
        "import sys; from vaezoo_cli.__main__ import main; sys.argv = ['vaezoo', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit as e: assert not e.code\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_arguments_show_help(run):
    code, out, err = run()
    assert code == 0 and out.startswith("Usage: vaezoo") and err == ""


def test_reconstruct_spreads_over_classes(run_ok, inside):
    for level in (0, 250):
        Path(f"images/{level}").mkdir(parents=True)
        for i in range(40):
            Image.new("L", (16, 16), level + i % 5).save(f"images/{level}/{i}.png")
    run_ok("train", "mlp-vae", "--data", "images", "--steps", 1, "--batch-size", 8, "--out", "r")
    run_ok("reconstruct", "r", "-n", 2, "--data", "images", "--out", "two.png")
    with Image.open("two.png") as image:
        levels = {image.getpixel((10, 10)), image.getpixel((80, 10))}
    assert min(levels) < 10 and max(levels) > 240


def test_large_samples_run_in_batches(trained, monkeypatch):
    sizes = []
    decode = trained.vae.decode
    monkeypatch.setattr(trained.vae, "decode", lambda z: (sizes.append(len(z)), decode(z))[1])
    assert vaezoo.sample(trained, 1100).shape == (1100, 1, 28, 28)
    assert vaezoo.reconstruct(trained, np.zeros((1100, 28, 28), np.float32)).shape == (1100, 1, 28, 28)
    assert max(sizes) <= 500 and sum(sizes) == 2200


def test_streaming_does_not_change_results(run_ok, run, inside):
    Path("images").mkdir()
    for i in range(20):
        Image.new("L", (16, 16), 10 * i).save(f"images/{i:02}.png")
    command = ("train", "mlp-vae", "--data", "images", "--steps", 2, "--batch-size", 4, "--json")
    results = [json.loads(run_ok(*command, "--out", flag, flag))["result"] for flag in ("--stream", "--no-stream")]
    assert results[0] == results[1]
    images = []
    for flag in ("--stream", "--no-stream"):
        run_ok("reconstruct", "./--stream", "--data", "images", "--out", "r.png", flag)
        images.append(Path("r.png").read_bytes())
    assert images[0] == images[1]
    for command in (("train", "mlp-vae", "--data", "digits"), ("reconstruct", "./--stream", "--data", "digits")):
        code, _, err = run(*command, "--stream")
        assert code == 2 and "'digits' cannot be streamed" in err and "leave out --stream" in err


def test_bad_images_raise_or_skip(run, inside, capsys):
    (inside / "images").mkdir()
    for i in range(20):
        Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(inside / "images" / f"{i:02}.png")
    for i in (3, 5, 7, 9):
        (inside / "images" / f"{i:02}.png").write_bytes(b"")
    command = ("train", "mlp-vae", "--data", "images", "--epochs", "1", "--batch-size", "4", "--out", "out")
    code, _, err = run(*command)
    assert code == 3 and len(err.splitlines()) == 2 and "4 of 20 images" in err and "09.png" not in err
    with pytest.raises(SystemExit):
        main(["--debug", *command])
    assert "09.png': not an image" in capsys.readouterr().err  # the traceback lists all of them
    code, _, err = run(*command, "--on-bad-image", "skip")
    assert code == 0
    assert [line for line in err.splitlines() if "warning" in line and "4 of 20" in line and "left out" in line] != []
    code, _, err = run("reconstruct", "out")  # the run stores the option
    assert code == 0 and "4 of 20 images" in err


@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("head") is None, reason="needs bash and head")
def test_closed_pipe_is_no_error(inside):
    command = f"{sys.executable} -m vaezoo_cli list | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_warning_is_one_line(run, inside, monkeypatch):
    monkeypatch.setattr("torch.compile", lambda *args, **kwargs: lambda *a, **k: 1 / 0)
    code, _, err = run("train", "mlp-vae", "--steps", 2, "--compile", "on")
    assert code == 0
    warned = [line for line in err.splitlines() if "warning" in line]
    assert len(warned) == 1 and warned[0].startswith("vaezoo: warning: ") and "division by zero" in warned[0]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_unencodable_output_is_replaced(encoding, trained, inside):
    shutil.copytree(trained.path, name := "r-\u2192-é")
    commands = (["list"], ["eval", name, "--limit", "10"], ["sample", name], ["doctor"], ["train", "--resume", name])
    code = (
        "import sys; from vaezoo_cli.__main__ import main\n"
        f"for arguments in {commands!r}:\n"
        "    sys.argv = ['vaezoo', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as e: assert not e.code, arguments"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0 and b"Error" not in done.stderr, done.stderr
    out = done.stdout.decode(encoding, "replace")
    if encoding == "cp1252":
        assert " ± " in out and "r-?-é/samples.png" in out
    else:
        assert " ? " in out and "/samples.png" in out
