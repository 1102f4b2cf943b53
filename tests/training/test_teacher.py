"""A model that learns the latents of another run: the loss, exact resume, and refused pairs."""

import json
import shutil
import signal

import pytest
import torch
from test_resume import contents

import vaezoo
from vaezoo import Batch, TrainConfig, VaezooError
from vaezoo.core import signals
from vaezoo.errors import InputError
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.distillation import Distillation
from vaezoo.registry import find_model
from vaezoo.training.run_files import read_run_record

OPTIONS = {"channels": 8, "blocks": "1,1"}
CONFIG = TrainConfig(steps=40, batch_size=20, lr=0.003, eval_every=20)


@pytest.fixture(scope="module")
def images(digits):
    return vaezoo.load_data("digits", likelihood="gaussian-identity")


@pytest.fixture(scope="module")
def teacher(images, tmp_path_factory):
    """A teacher, after few steps: its latents are not those that other weights give."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    return vaezoo.train("tiny-autoencoder", images, options={**OPTIONS, "channels": 12}, config=CONFIG, out=out)


@pytest.fixture(scope="module")
def student(images, teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "run"
    return vaezoo.train("tiny-autoencoder", images, options=OPTIONS, config=CONFIG, teacher=teacher, out=out)


def distillation(images, teacher):
    vae = vaezoo.create_model("tiny-autoencoder", images, OPTIONS)
    objective = find_model("tiny-autoencoder").build(OPTIONS, images.spec)[2]
    return vae, Distillation(objective, teacher.vae)


def test_loss_is_that_of_both_halves(images, teacher):
    vae, objective = distillation(images, teacher)
    batch = Batch(images.train.batch(slice(0, 6)).x, None)
    output = objective(vae, batch, StepContext.initial())
    with torch.no_grad():
        target, z = teacher.vae.encode(batch.x).z, vae.encode(batch.x).z
        latent_error = (z - target).square().flatten(1).sum(1).mean() / 2
        reconstruction = -vae.likelihood.log_prob(vae.decode(target), batch.x).mean()
    torch.testing.assert_close(output.losses["vae"].detach(), latent_error + reconstruction)
    torch.testing.assert_close(output.metrics["latent_error"], latent_error)
    own = objective.objective(vae, batch, StepContext.initial()).metrics
    assert output.metrics["reconstruction"] == own["reconstruction"]  # from the student's own latents
    output.losses["vae"].backward()
    assert all(p.grad is not None for p in vae.parameters())
    assert all(p.grad is None for p in teacher.vae.parameters())


def test_latents_come_near_those_of_the_teacher(images, teacher, student):
    x = images.valid.batch(slice(0, 50)).x
    vae, _ = distillation(images, teacher)
    with torch.no_grad():
        target = teacher.vae.encode(x).z
        before, after = ((model.encode(x).z - target).square().mean() for model in (vae, student.vae))
        exchanged = teacher.vae.likelihood.mean(teacher.vae.decode(student.vae.encode(x).z))
    assert after < 0.3 * before
    assert exchanged.shape == x.shape
    assert not student.objective.state_dict()  # the teacher is no part of the run


def test_stopped_training_resumes_exactly(images, teacher, student, tmp_path):
    def stop(trainer, path):
        run = trainer.train_step.run

        def run_and_stop(*args):
            run(*args)
            if trainer.global_step + 1 == 25:
                signal.raise_signal(signal.SIGTERM)

        trainer.train_step.run = run_and_stop

    with signals.handle_signals(), pytest.raises(signals.Stopped):
        vaezoo.train(
            "tiny-autoencoder",
            images,
            options=OPTIONS,
            config=CONFIG,
            teacher=teacher.path,
            out=tmp_path / "run",
            on_start=stop,
        )
    moved = shutil.copytree(teacher.path, tmp_path / "moved")
    vaezoo.resume(tmp_path / "run", images, teacher=moved)
    assert contents(tmp_path / "run") == contents(student.path)


def test_other_teachers_are_refused(images, teacher, student, tmp_path):
    record = read_run_record(student.path)
    assert record.teacher.path == str(teacher.path.resolve())
    copy = shutil.copytree(student.path, tmp_path / "copy")
    (copy / "result.json").unlink()
    with pytest.raises(InputError, match="are not those of the teacher"):
        vaezoo.resume(copy, images, teacher=student.path)
    own = shutil.copytree(teacher.path, tmp_path / "own")
    (own / "result.json").unlink()
    with pytest.raises(VaezooError, match="was started without a teacher"):
        vaezoo.resume(own, images, teacher=teacher.path)
    entry = json.loads((copy / "run.json").read_text())
    entry["teacher"]["path"] = str(tmp_path / "gone")
    (copy / "run.json").write_text(json.dumps(entry))
    with pytest.raises(InputError, match="is no longer at") as e:
        vaezoo.resume(copy, images)
    assert "--teacher" in e.value.hint


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("tiny-autoencoder", {**OPTIONS, "latent_channels": 3}, r"latents of the teacher have the shape \(4, 14, 14\)"),
        ("autoencoder-kl", {"channels": "8,8", "norm_groups": 4}, "models that encode to a point"),
        ("vae-gan", {}, "that of this model has weights"),
    ],
)
def test_models_with_other_latents_are_refused(images, teacher, tmp_path, model, options, message):
    with pytest.raises(VaezooError, match=message) as e:
        vaezoo.train(model, images, options=options, config=CONFIG, teacher=teacher, out=tmp_path / "run")
    assert e.value.hint and not (tmp_path / "run").exists()


def test_teacher_of_other_data_is_refused(teacher, tmp_path):
    with pytest.raises(VaezooError, match=r"takes data of shape \(1, 28, 28\), not \(3, 28, 28\)"):
        data = torch.rand((60, 3, 28, 28), generator=torch.Generator().manual_seed(0)).numpy()
        vaezoo.train("tiny-autoencoder", data, options=OPTIONS, config=CONFIG, teacher=teacher, out=tmp_path / "run")
