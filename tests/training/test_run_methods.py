"""What the command line does with a run, a program does with its methods."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo
from vaezoo import TrainConfig
from vaezoo.errors import InputError, VaezooError
from vaezoo.training.reports import Report
from vaezoo_cli.render import train as rendered


@pytest.fixture
def mine(digits, inside):
    """A finished run in runs/."""
    return vaezoo.train("mlp-vae", digits, options={"latent_dim": 2}, config=TrainConfig(steps=2))


def test_every_name_is_loaded(mine):
    for source in (None, "mlp-vae", "vaezoo/mlp-vae", mine.path, str(mine.path)):
        assert vaezoo.load(source).path.resolve() == mine.path.resolve()
    pretrained = vaezoo.load("conv-vae-mnist")
    assert pretrained.checkpoint.model_sha256 == vaezoo.load("conv-vae", pretrained="mnist").checkpoint.model_sha256
    with pytest.raises(InputError, match="there is no run 'mlp-veo'") as e:
        vaezoo.load("mlp-veo")
    assert e.value.hint == "did you mean 'mlp-vae'?"
    with pytest.raises(InputError, match="no run of conv-vae in runs/"):
        vaezoo.load("conv-vae")


def test_exports_are_told_apart(exported):
    with pytest.raises(VaezooError, match="is an export, not a run") as e:
        vaezoo.load(exported.path)
    assert "vaezoo.runtime.load" in e.value.hint


def test_samples_are_those_of_the_command(mine):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    x = mine.sample(8, seed=3)
    assert x.shape == (8, 1, 28, 28) and torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(x, vaezoo.sample(mine, 8, seed=3))


def test_plots_are_those_of_the_command(mine, digits):
    assert mine.plot("manifold", count=3) == [mine.path / "manifold.png"]
    first = Image.open(mine.path / "manifold.png")
    assert first.size[0] > 3 * 28
    assert mine.plot("traversals", "t.gif", dims=[1], count=3)[0].name == "t.gif"
    for arguments, error in (
        (("nothing",), "no plot kind named"),
        (("manifold", "m.jpg"), "the format must be PNG"),
    ):
        with pytest.raises(VaezooError, match=error):
            mine.plot(*arguments)
    for values in ({"label": 3}, {"count": 0}, {"count": 10_000}, {"count": "5"}, {"count": 2.5}):
        with pytest.raises(VaezooError, match=r"has no effect on|is too|not a whole number"):
            mine.plot("manifold", **values)
    for values in ({"dims": "0,1"}, {"dims": [0.5]}, {"dims": 3}, {"seed": -1}):
        with pytest.raises(VaezooError, match=r"dims is|a latent dimension is 0.5|seed is -1"):
            mine.plot("traversals", **values)


@pytest.mark.slow
def test_plots_need_no_command_line(mine):
    code = (
        "import sys; sys.modules.update(vaezoo_cli=None, click=None, rich=None); import vaezoo;"
        "print(*vaezoo.load(sys.argv[1]).plot('manifold', count=2))"
    )
    done = subprocess.run([sys.executable, "-c", code, mine.path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(mine.path / "manifold.png")


@pytest.mark.slow
def test_export_is_that_of_the_function(mine, tmp_path):
    result = mine.export(tmp_path / "export")
    assert vaezoo.runtime.load(result.path).sample(2).shape == (2, 1, 28, 28)
    assert vaezoo.verify_onnx(result.path)


def test_progress_goes_to_stderr(digits, tmp_path, capsys):
    seen = []
    config = TrainConfig(steps=4, eval_every=2)
    run = vaezoo.train("mlp-vae", digits, config=config, out=tmp_path / "run", progress=True, on_report=seen.append)
    out, err = capsys.readouterr()
    assert out == "" and "4 steps on" in err and err.count("-ELBO") == 2 and len(seen) == 4
    vaezoo.resume(run.path, digits, steps=6, progress=True)
    assert "resuming after step 4" in capsys.readouterr().err
    vaezoo.resume(run.path, digits, steps=8)
    assert capsys.readouterr().err == ""


def report(step, split="train"):
    metrics = {"elbo": -9.0, "reconstruction": 5.0, "kl": 4.0}
    return Report(
        split=split,
        step=step,
        steps=100,
        epoch=step / 10,
        epochs=10.0,
        metrics=metrics,
        lr=0.1,
        images_per_second=7.0,
        seconds_left=60.0,
    )


def test_a_line_follows_every_30_seconds(capsys):
    """Without a terminal, and even while no report comes: a step or a compilation may take minutes."""

    class Steps:
        global_step, steps = 0, 100

    now = [0.0]
    view = rendered.TrainingView(clock=lambda: now[0])
    view.tick()
    assert capsys.readouterr().err == ""  # nothing is trained yet
    view.trainer = Steps
    lines = []
    for second in range(100):
        now[0] = float(second)
        Steps.global_step = second
        if second == 40:
            view.report(report(40))
        if second == 50:
            view.report(report(50, "valid"))
        view.tick()
        lines += [(second, line) for line in capsys.readouterr().err.splitlines()]
    assert [second for second, _ in lines] == [30, 50, 80]
    assert lines[0][1] == "step 30 of 100" and lines[1][1].startswith("epoch   5.00")
    assert lines[2][1].startswith("step 80 of 100  -ELBO 9.00  7 examples/s")  # no image is known of


def test_no_thread_outlives_the_view(capsys):
    with rendered.TrainingView() as view:
        pass
    assert view.stopped.is_set()
