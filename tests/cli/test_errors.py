"""Invalid input: two lines on stderr, the documented exit code, no traceback, no files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaezoo.core import memory
from vaezoo.errors import VaezooError
from vaezoo_cli.main import main


@pytest.fixture
def fails(capsys, inside):
    """Returns a function that runs a command line, which must fail: error and hint."""

    def fails(code, *arguments, leaves=()):
        with pytest.raises(SystemExit) as e:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if not line.startswith("vaezoo: warning")]
        assert e.value.code == code, captured.err
        assert len(lines) == 2, captured.err
        assert lines[0].startswith("vaezoo: error: ") and lines[1].startswith("hint: ")
        assert "Traceback" not in captured.err
        assert sorted(p.name for p in inside.iterdir()) == sorted(leaves)
        return lines[0].removeprefix("vaezoo: error: "), lines[1].removeprefix("hint: ")

    return fails


@pytest.mark.parametrize(
    ("code", "arguments", "error", "hint"),
    [
        (2, ["train", "beta_vae"], "no model named 'beta_vae'", "did you mean 'beta-vae'?"),
        (2, ["train", "mlp-vae", "-o", "hiden=3"], "no option named 'hiden'", "did you mean 'hidden'?"),
        (2, ["train", "mlp-vae", "-o", "latent_dim=x"], "takes an integer, not 'x'", "latent_dim=20"),
        (2, ["train", "mlp-vae", "-o", "latent_dim"], "not of the form name=value", "-o latent_dim=VALUE"),
        (2, ["train", "mlp-vae", "-o", "latent_dim=0"], "'latent_dim' is 0", "at least 1"),
        (2, ["train", "mlp-vae", "--data", "digit"], "no data set named 'digit'", "did you mean 'digits'?"),
        (3, ["train", "mlp-vae", "--data", "no/such/folder"], "no/such/folder", ""),
        (3, ["train", "mlp-vae", "--data", "nothing.npz"], "nothing.npz", ""),
        (3, ["train", "mlp-vae", "--data", "mnist", "--data-dir", "empty"], "empty", "--data-dir"),
        (2, ["train", "mlp-vae", "--likelihood", "bernouli"], "no likelihood named", "did you mean 'bernoulli'?"),
        (
            2,
            ["train", "mlp-vae", "--optimizer", "sgd"],
            "--optimizer takes one of adam",
            "for example --optimizer adam",
        ),
        (2, ["train", "mlp-vae", "--epochs", "0"], "--epochs is 0", "give --epochs at least 1"),
        (2, ["train", "mlp-vae", "--epochs", "many"], "--epochs takes an integer, not 'many'", "--epochs 20"),
        (2, ["train", "mlp-vae", "--batch-size", "100000"], "batch size 100000 is larger", "at most 9000"),
        (2, ["train", "mlp-vae", "--milestones", "a"], "--milestones takes integers", "--milestones 32,64"),
        (2, ["train", "mlp-vae", "--milestones", "5"], "--milestones does nothing", "give --schedule multistep"),
        (2, ["train", "mlp-vae", "--schedule", "multistep"], "has no --milestones", "--milestones 5000,8000"),
        (
            2,
            ["train", "mlp-vae", "--grad-accum-steps", "0"],
            "--grad-accum-steps is 0",
            "give --grad-accum-steps at least 1",
        ),
        (2, ["train", "mlp-vae", "--lr", "nan"], "--lr takes a number, not 'nan'", "--lr 0.001"),
        (2, ["train", "mlp-vae", "--steps", "9" * 30], "--steps takes an integer", ""),
        (2, ["train"], "there is no MODEL to train", "vaezoo list"),
        (2, ["trian"], "no command named 'trian'", "did you mean 'train'?"),
        (2, ["predict"], "no command named 'predict'", "'vaezoo --help' lists the commands"),
        (2, ["train", "mlp-vae", "--latent-dim", "3"], "No such option", "-o name=value"),
        (2, ["train", "mlp-vae", "--size", "3"], "No such option", "'--size' is now called '--image-size'"),
        (2, ["train", "mlp-vae", "--ema", "0.9"], "No such option", "'--ema' is now called '--ema-decay'"),
        (2, ["train", "--grad-accum", "2"], "No such option", "'--grad-accum' is now called '--grad-accum-steps'"),
        (2, ["eval", "--draws", "2"], "No such option", "'--draws' is now called '--elbo-samples'"),
        (2, ["eval", "--examples", "2"], "No such option", "'--examples' is now called '--limit'"),
        (2, ["sample", "--size", "3"], "No such option", "'vaezoo sample --help' shows the usage"),
        (2, ["sample", "--label"], "requires an argument", "'vaezoo sample --help' shows the usage"),
        (2, ["train", "conv-vae", "-o", "kernel=3"], "no option named 'kernel'", "is now called 'kernel_size'"),
        (2, ["plot", "--kind", "concept"], "no plot kind named", "'concept' is now called 'attribute-vector'"),
        (2, ["plot", "--kind", "scatter"], "no plot kind named", "'scatter' is now called 'latents'"),
        (2, ["plot", "--kind", "curves"], "no plot kind named", "'curves' is now called 'learning-curves'"),
        (2, ["plot", "--kind", "sample"], "no plot kind named", "did you mean 'samples'?"),
        (2, ["eval", "--metrics", "bound"], "no metric named", "'bound' is now called 'elbo'"),
        (2, ["eval", "--metrics", "codes"], "no metric named", "'codes' is now called 'probe'"),
        (2, ["eval", "--metrics", "factors"], "no metric named", "'factors' is now called 'disentanglement'"),
        (2, ["eval", "--metrics", "samples"], "no metric named", "'samples' is now called 'nearest-neighbour'"),
        (2, ["eval", "--metrics", "frechet"], "no metric named", "'frechet' is now called 'fid'"),
        (2, ["train", "conv-vae", "-o", "channels=a"], "'channels' takes integers", "channels=32,64"),
        (2, ["sample", "--out", "x.jpg"], "cannot write 'x.jpg': the format must be PNG", ".png"),
        (2, ["sample", "--z", "z.npy", "-n", "3"], "--z and -n both set the number", "leave out -n"),
        (2, ["score", "--out", "x.png"], "cannot write 'x.png': the format must be CSV", ".csv"),
        (2, ["encode", "--out", "."], "is a directory", "vaezoo encode --help"),
        (2, ["train", "mlp-vae", "--image-size", "24x"], "--image-size takes pixels, not '24x'", "24x32"),
        (2, ["train", "mlp-vae", "--image-size", "24x2000"], "image size 24x2000 is out of range", "4 to 1024"),
        (2, ["train", "mlp-vae", "--channels", "gray"], "channels 'gray' are not known", "grey"),
        (2, ["train", "mlp-vae", "--data", "shapes", "--image-size", "16x20"], "square", "one number"),
        (2, ["new-plugin", "conv-vae"], "a model named 'conv-vae' already", "another name"),
        (3, ["sample"], "no run in runs/", "vaezoo train conv-vae"),
        (3, ["sample", "mlp-vae"], "no run of mlp-vae", "vaezoo train mlp-vae"),
        (3, ["sample", "mlp_vae"], "there is no run 'mlp_vae'", "did you mean 'mlp-vae'?"),
        (2, ["export"], "no format given", "--onnx"),
        (3, ["export", ".", "--onnx"], "is not a run folder", "vaezoo train"),
        (2, ["show", "nothing"], "no model named", "vaezoo list"),
        (2, ["check", "nothing"], "no model named", "is found once its package is installed"),
        (2, ["train", "vae"], "no model named 'vae'", "did you mean 'mlp-vae' or 'conv-vae'?"),
        (2, ["train", "VAE"], "no model named 'VAE'", "did you mean 'mlp-vae' or 'conv-vae'?"),
        (2, ["train", "mlp-vae", "--likelihood", "mse"], "no likelihood named 'mse'", "did you mean 'gaussian'?"),
        (2, ["train", "mlp-vae", "--likelihood", "bce"], "no likelihood named 'bce'", "did you mean 'bernoulli'?"),
        (2, ["train", "mlp-vae", "--device", "gpu"], "device 'gpu' was not found", "cuda"),
        (2, ["train", "mlp-vae", "--device", "cuda:99"], "device 'cuda:99' was not found", "use auto"),
        (
            2,
            ["train", "mlp-vae", "-o", "latent_dim=2", "hidden=8"],
            "extra argument",
            "-o before each option: -o hidden=8",
        ),
        (
            2,
            ["train", "-o", "latent_dim=2", "hidden=8"],
            "no model named 'hidden=8'",
            "-o before each option: -o hidden=8",
        ),
        (2, ["train", "mlp-vae", "--augment", "hflip", "shift=2"], "extra argument", "--augment hflip,shift=2"),
        (2, ["train", "--augment", "shift=2", "hflip"], "no model named 'hflip'", "--augment hflip,shift=2"),
        (3, ["train", "mlp-vae", "--data", "photo.jpg"], "no file or folder 'photo.jpg'", "check the path"),
        (2, ["new-plugin", "My VAE"], "'My VAE' is not a valid model name", "my-vae"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_invalid_input_is_refused(fails, code, arguments, error, hint):
    actual = fails(code, *arguments)
    assert error in actual[0] and hint in actual[1]


def test_hint_for_large_arrays_can_be_followed(fails):
    np.save("large.npy", np.random.default_rng(0).random((20, 300, 300), np.float32))
    error, hint = fails(2, "train", "conv-vae", "--data", "large.npy", "--batch-size", 8, leaves=["large.npy"])
    assert "(1, 300, 300)" in error and hint.startswith("use mlp-vae") and "your own program for arrays" in hint


def test_labels_that_a_model_needs(fails):
    np.save("x.npy", np.random.default_rng(0).random((20, 4), np.float32))
    error, hint = fails(2, "train", "cvae", "--data", "x.npy", leaves=["x.npy"])
    assert "'x' has no labels" in error and "a folder of images for each class, y in a .npz file" in hint


def test_hint_for_grey_levels_as_floats_can_be_followed(fails, run_ok):
    np.save("x.npy", np.random.default_rng(0).integers(0, 256, (30, 8, 8)).astype(np.float32))
    train = ("train", "mlp-vae", "--batch-size", 8, "--steps", 1)
    error, hint = fails(3, *train, "--data", "x.npy", leaves=["x.npy"])
    assert "x of" in error and "values from 0 to 255" in error and "divide grey levels by 255" in hint
    run_ok(*train, "--data", "x.npy", "--scale", "minmax")
    np.save("x.npy", np.load("x.npy") / 255)
    run_ok(*train, "--data", "x.npy")


def test_check_says_how_to_install(run_ok, fails):
    run_ok("new-plugin", "my-vae")
    _, hint = fails(2, "check", "my-vae", leaves=["vaezoo-my-vae"])
    assert hint == "install it first: pip install -e vaezoo-my-vae"


def test_unsupported_data_suggest_another_model(fails):
    np.save("v.npy", np.zeros((40, 9), np.float32))
    error, hint = fails(2, "train", "conv-vae", "--data", "v.npy", "--batch-size", 8, leaves=["v.npy"])
    assert "(9,)" in error and "mlp-vae" in hint


@pytest.mark.parametrize(
    "array", [np.full((20, 4), 7.0), np.full((20, 4), np.nan), np.zeros(20), np.array([[{}]] * 20)], ids=range(4)
)
def test_unusable_arrays_are_refused(fails, array):
    np.save("a.npy", array, allow_pickle=True)
    fails(3, "train", "mlp-vae", "--data", "a.npy", leaves=["a.npy"])


def test_unusable_image_folders_are_refused(fails, inside):
    (inside / "images").mkdir()
    fails(3, "train", "mlp-vae", "--data", "images", leaves=["images"])
    Image.new("L", (16, 16)).save("images/good.png")
    data = Path("images/good.png").read_bytes()
    Path("images/bad.png").write_bytes(data[: len(data) // 2])
    error, _ = fails(3, "train", "mlp-vae", "--data", "images", leaves=["images"])
    assert "bad.png" in error


def test_arrays_of_other_sizes_are_refused(fails, trained, inside):
    np.save("x.npy", np.zeros((4, 16, 16)))
    for command in ("reconstruct", "encode", "eval", "score"):
        error, hint = fails(2, command, trained.path, "--data", "x.npy", leaves=["x.npy"])
        assert "(1, 16, 16)" in error and "(1, 28, 28)" in error and "28 x 28" in hint


def test_existing_folder_is_kept(fails, inside):
    (inside / "mine").mkdir()
    (inside / "mine" / "file").write_text("")
    fails(5, "train", "mlp-vae", "--out", "mine", leaves=["mine"])
    fails(5, "new-plugin", "my-vae", "--out", "mine", leaves=["mine"])


def test_vectors_become_arrays(fails, run_ok, inside, tmp_path_factory):
    from vaezoo import TrainConfig, from_arrays, train

    data = from_arrays(np.random.default_rng(0).random((40, 9), np.float32))
    run = train("mlp-vae", data, config=TrainConfig(steps=1, batch_size=8), out=tmp_path_factory.mktemp("v") / "run")
    np.save("vectors.npy", data.train.x.numpy())
    for command in (["sample"], ["reconstruct", "--data", "vectors.npy"]):
        _, hint = fails(2, command[0], run.path, *command[1:], "--out", "a.png", leaves=["vectors.npy"])
        assert "ends in .npy or .npz" in hint
    assert run_ok("sample", run.path, "-n", 5, "--out", "a.npy") == "a.npy\n"
    assert np.load("a.npy").shape == (5, 9)
    for kind in ("traversals", "interpolation", "manifold"):
        error, _ = fails(2, "plot", run.path, "--kind", kind, leaves=["vectors.npy", "a.npy"])
        assert "(9,)" in error


def writing_commands(run):
    """Returns commands that write to --out."""
    return ["train", "mlp-vae", "--steps", "1"], ["sample", run.path], ["export", run.path, "--onnx"]


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write everywhere")
def test_missing_write_permission(fails, trained, inside):
    (inside / "locked").mkdir(mode=0o500)
    for arguments in writing_commands(trained):
        error, _ = fails(5, *arguments, "--out", "locked/new.png", leaves=["locked"])
        assert "Permission denied" in error


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_unwritable_folder(fails, trained):
    # Not even root can create folders in /proc.
    for arguments in writing_commands(trained):
        error, hint = fails(5, *arguments, "--out", "/proc/vaezoo/new.png")
        assert "/proc/vaezoo" in error and "permissions" in hint


def test_divergence_keeps_last_checkpoint(fails, capsys, inside):
    with pytest.raises(SystemExit) as e:
        main(["train", "mlp-vae", "--lr", "1e30", "--steps", "60", "--out", "r"])
    err = capsys.readouterr().err.splitlines()
    assert e.value.code == 4
    assert (
        err[-2].startswith("vaezoo: error: training diverged at step")
        and "--lr" in err[-1]
        and "the last checkpoint in r is that of step 0" in err[-1]
    )
    with pytest.raises(SystemExit) as e:
        main(["sample", "r"])
    assert e.value.code == 0
    assert "warning: the training of r has not finished; using the checkpoint of step 0" in capsys.readouterr().err


def test_debug_shows_traceback(capsys, inside):
    for arguments in (["--debug", "show", "x"], ["show", "x", "--debug"]):
        with pytest.raises(SystemExit) as e:
            main(arguments)
        assert e.value.code == 2 and "Traceback" in capsys.readouterr().err


def test_interrupt_is_code_130():
    code = "import vaezoo_cli.main as m\n@m.vaezoo.command()\ndef stop():\n  raise KeyboardInterrupt\nm.main(['stop'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr.startswith("vaezoo: error: interrupted\nhint: ")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system decides")
@pytest.mark.parametrize(("k", "m"), [(2000, 1), (10**12, 1), (10**18, 1), (20, 100)])
def test_samples_beyond_memory(k, m, capsys, inside, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1 << 28)
    monkeypatch.setattr(memory, "read_sizes", lambda path, read=memory.read_sizes: read(path) | {"SwapFree": 0})
    with pytest.raises(SystemExit) as e:
        main(["train", "iwae", "-o", f"objective.k={k}", "-o", f"objective.m={m}", "--steps", "2", "--out", "run"])
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert e.value.code == 2 and not any(inside.iterdir())
    assert error == "vaezoo: error: a batch of 128 does not fit in the memory of cpu with 1 accumulation step"
    assert "--grad-accum-steps 2" in hint and "number of samples" in hint


def test_failed_training_leaves_given_folder_empty(inside, monkeypatch):
    def fail(self):
        raise VaezooError("the batch does not fit", "use a smaller one")

    monkeypatch.setattr("vaezoo.training.trainer.Trainer.fit", fail)
    for out in (inside, "."):
        with pytest.raises(SystemExit) as e:
            main(["train", "mlp-vae", "--steps", "2", "--out", str(out)])
        assert e.value.code == 2
        inside.mkdir(exist_ok=True)
        assert not any(inside.iterdir())
        os.chdir(inside)
