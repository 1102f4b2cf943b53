"""The command line as users type it: what it prints, writes and leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaezoo import list_models
from vaezoo_cli.main import main

MODELS = [r.name for r in list_models() if r.distribution == "vaezoo"]


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """A folder of 60 small colour images in two classes."""
    root = tmp_path_factory.mktemp("colour")
    noise = np.random.default_rng(0)
    for i in range(60):
        folder = root / ("train" if i < 48 else "test") / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("data", ["digits", "colour"])
def test_every_model_goes_the_whole_way(name, data, fine, colour, inside):
    source = colour if data == "colour" else data
    out = fine("train", name, "--data", source, "--steps", 3, "--batch-size", 16, "-o", "latent_dim=4", "--out", "r")
    assert "-ELBO" in out and "vaezoo export r --onnx" in out
    assert fine("sample", "r").strip() == "r/samples.png"
    assert fine("reconstruct", "r", "-n", 10).strip() == "r/reconstructions.png"
    mode = "RGB" if data == "colour" else None
    for image in ("samples", "reconstructions"):
        with Image.open(f"r/{image}.png") as image:
            assert image.width > 200 and (mode is None or image.mode == mode)
    exported = json.loads(fine("export", "r", "--onnx", "--json"))
    assert exported["folder"] == "exports/r" and Path("exports/r/decoder.onnx").exists()


def test_train_tells_in_plain_lines_and_ends_with_the_next_commands(run, inside):
    code, out, err = run("train", "mlp-vae", "--epochs", 2, "--batch-size", 500)
    assert code == 0
    lines = [line for line in err.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2 and all(w in lines[0] for w in ("-ELBO", "reconstruction", "KL", "images/s", "left"))
    bounds = [float(line.split("-ELBO ")[1].split()[0]) for line in lines]
    assert bounds[1] < bounds[0]
    assert "\x1b" not in err + out
    for command in ("vaezoo sample", "vaezoo reconstruct", "vaezoo export"):
        assert f"{command} runs/mlp-vae-digits-1" in out


def test_settings_reach_the_run(fine, inside):
    settings = ("--optimizer", "adamw", "--weight-decay", "0.1", "--schedule", "multistep", "--milestones", "1,2")
    out = fine("train", "mlp-vae", "--steps", 3, *settings, "--clip-grad", 5, "--likelihood", "gaussian:0.5", "--json")
    described = json.loads(out)
    training = json.loads((Path(described["run"]) / "run.json").read_text())["training"]
    assert (training["optimizer"], training["milestones"], training["clip_grad"]) == ("adamw", [1, 2], 5.0)
    assert described["data"]["likelihood"] == "gaussian:0.5"
    assert described["result"]["split"] == "test"


def test_names_of_models_and_nothing_mean_the_newest_run(fine, inside):
    fine("train", "mlp-vae", "--steps", 1)
    fine("train", "conv-vae", "--steps", 1)
    os.utime("runs/mlp-vae-digits-1/run.json", ns=(1, 1))
    assert fine("sample").strip() == "runs/conv-vae-digits-1/samples.png"
    assert fine("sample", "mlp-vae").strip() == "runs/mlp-vae-digits-1/samples.png"
    fine("export", "--onnx")
    assert Path("exports/conv-vae-digits-1/manifest.json").exists()


def test_the_same_seed_samples_the_same_image(fine, trained, inside):
    for out, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        fine("sample", trained.path, "--seed", seed, "--out", out)
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_list_and_show_tell_what_there_is(fine):
    listed = json.loads(fine("list", "--json"))
    assert {row["name"] for row in listed["models"]} >= set(MODELS) and "digits" in listed["data"]
    shown = json.loads(fine("show", "beta-vae", "--json"))
    assert {o["name"]: o["default"] for o in shown["options"]}["beta"] == 4.0
    inputs = {tuple(row["shape"]): row["parameters"] for row in shown["inputs"]}
    assert inputs[(100,)] is None
    # 1-32-64 channels, 4x4: 32*16+32, 64*32*16+64, 3136*32+32.
    assert inputs[(1, 28, 28)]["encoder"] == 544 + 32_832 + 100_384
    text = fine("list") + fine("show", "vae-gan")
    assert "Larsen" in text and "gamma" in text and "discriminator" in text


def test_show_follows_options(fine):
    small = json.loads(fine("show", "mlp-vae", "-o", "hidden=10", "--json"))["inputs"][0]["parameters"]
    assert small["encoder"] == 784 * 10 + 10 + 10 * 40 + 40


def test_check_passes_on_a_built_in(fine):
    results = json.loads(fine("check", "mlp-vae", "--json"))
    assert len(results) == 11 and all(r["passed"] for r in results)


def test_help_is_there_for_every_command(fine):
    text = fine("--help")
    for command in ("list", "show", "train", "sample", "reconstruct", "plot", "export", "new-plugin", "check"):
        assert command in text
        assert "Usage: vaezoo " + command in fine(command, "--help")


def test_the_command_alone_shows_the_help(run):
    code, out, err = run()
    assert code == 0 and out.startswith("Usage: vaezoo") and err == ""


def test_reconstruct_spreads_over_the_classes_of_a_sorted_folder(fine, inside):
    for level in (0, 250):
        Path(f"images/{level}").mkdir(parents=True)
        for i in range(40):
            Image.new("L", (16, 16), level + i % 5).save(f"images/{level}/{i}.png")
    fine("train", "mlp-vae", "--data", "images", "--steps", 1, "--batch-size", 8, "--out", "r")
    fine("reconstruct", "r", "-n", 2, "--data", "images", "--out", "two.png")
    with Image.open("two.png") as image:
        levels = {image.getpixel((10, 10)), image.getpixel((80, 10))}
    assert min(levels) < 10 and max(levels) > 240


def test_image_folders_can_be_streamed(fine, run, inside):
    Path("images").mkdir()
    for i in range(20):
        Image.new("L", (16, 16), 10 * i).save(f"images/{i:02}.png")
    words = ("train", "mlp-vae", "--data", "images", "--steps", 2, "--batch-size", 4, "--json")
    results = [json.loads(fine(*words, "--out", flag, flag))["result"] for flag in ("--stream", "--no-stream")]
    assert results[0] == results[1]
    images = []
    for flag in ("--stream", "--no-stream"):
        fine("reconstruct", "./--stream", "--data", "images", "--out", "r.png", flag)
        images.append(Path("r.png").read_bytes())
    assert images[0] == images[1]
    for command in (("train", "mlp-vae", "--data", "digits"), ("reconstruct", "./--stream", "--data", "digits")):
        code, _, err = run(*command, "--stream")
        assert code == 2 and "'digits' cannot be streamed" in err and "leave out --stream" in err


def test_bad_images_end_a_command_or_are_skipped(run, inside, capsys):
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
    code, _, err = run("reconstruct", "out")  # remembers it
    assert code == 0 and "4 of 20 images" in err


def test_a_closed_pipe_is_no_error(inside):
    command = f"{sys.executable} -m vaezoo_cli list | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_a_warning_is_one_line(run, inside, monkeypatch):
    monkeypatch.setattr("torch.compile", lambda *args, **kwargs: lambda *a, **k: 1 / 0)
    code, _, err = run("train", "mlp-vae", "--steps", 2, "--compile", "on")
    assert code == 0
    warned = [line for line in err.splitlines() if "warning" in line]
    assert len(warned) == 1 and warned[0].startswith("vaezoo: warning: ") and "division by zero" in warned[0]
