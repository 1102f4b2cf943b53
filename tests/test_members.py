"""Each built-in model from training to the runtime, on the kind of data that it is made for."""

import signal

import numpy as np
import pytest
import torch
from members import MEMBERS, member_data

from vaezoo import TrainConfig, list_models, resume, runtime, train, verify_onnx
from vaezoo.core import signals
from vaezoo.errors import VaezooError
from vaezoo.evaluation.likelihood import elbo, negative_log_likelihood
from vaezoo.export.export import export_onnx

WITHOUT_DENSITY = ("autoencoder", "vq-vae", "rae", "rae-gp", "wae", "wae-rbf", "swae", "aae", "tiny-autoencoder")
WITHOUT_DENSITY += ("vq-vae-2", "vq-vae-2-fsq", "fsq-vae", "lfq-vae", "residual-vq-vae")
WITHOUT_DENSITY += ("vq-autoencoder", "latent-diffusion-codes", "autoencoder-dc")

# Networks, objectives and posteriors whose steps differ most. The others are traced in the matrix.
TRACED = ("mlp-vae", "factor-vae", "iaf-vae", "vq-vae", "sentence-vae", "tvae")


def train_member(name, path, on_start=lambda trainer, path: None, **settings):
    member = MEMBERS[name]
    config = TrainConfig(steps=settings.pop("steps", 6), batch_size=20, eval_every=1_000, device="cpu", **settings)
    data = member_data(member.data)
    return train(member.model, data, options=member.options, config=config, out=path, on_start=on_start)


def stop_after(step):
    """Makes a training meet a SIGTERM after so many steps."""

    def on_start(trainer, path):
        run = trainer.train_step.run

        def run_and_stop(*args):
            run(*args)
            if trainer.global_step + 1 == step:
                signal.raise_signal(signal.SIGTERM)

        trainer.train_step.run = run_and_stop

    return on_start


def contents(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def test_all_models_are_members():
    assert {r.name for r in list_models() if r.built_in} <= set(MEMBERS)


@pytest.mark.parametrize("name", list(MEMBERS))
def test_train_and_evaluate(name, tmp_path):
    """A model trains, and its bound and likelihood are finite, or it says in one line that it has no density."""
    run = train_member(name, tmp_path / "run")
    split = member_data(MEMBERS[name].data).held_out[1].select(torch.arange(20))
    estimate = elbo(run.vae, split, num_samples=2)
    assert np.isfinite([estimate.elbo.value, estimate.kl.value, estimate.bits_per_dim]).all()
    try:
        nll = negative_log_likelihood(run.vae, split, num_samples=20).value
    except VaezooError as e:
        assert "density" in e.message and e.hint and name in WITHOUT_DENSITY
    else:
        assert nll < -estimate.elbo.value + 3 * (estimate.elbo.error or 0) + 5


@pytest.mark.parametrize("name", list(MEMBERS))
def test_stopped_and_resumed(name, tmp_path):
    """A training that was stopped ends in the same bytes."""
    train_member(name, tmp_path / "whole")
    with signals.handle_signals(), pytest.raises(signals.Stopped):
        train_member(name, tmp_path / "parts", on_start=stop_after(3))
    resume(tmp_path / "parts", member_data(MEMBERS[name].data))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MEMBERS))
def test_export_and_run(name, tmp_path):
    """The export passes its gate, is verified from its files, and reconstructs and samples without torch."""
    run = train_member(name, tmp_path / "run")
    result = export_onnx(run, tmp_path / "onnx")
    assert verify_onnx(tmp_path / "onnx").parity
    model = runtime.load(tmp_path / "onnx")
    x, y = (None if t is None else t.numpy() for t in run.examples)
    again = model.reconstruct(x[:7], None if y is None else y[:7])
    with torch.no_grad():
        expected = run.vae.reconstruct(*(None if t is None else t[:7] for t in run.examples)).numpy()
    if run.data.kind == "tokens":
        assert (again == expected).mean() > 0.99
    else:
        assert np.abs(again - expected).mean() < 1e-4
    samples = model.sample(40, seed=1)
    model.encode(samples[:7], None if y is None else y[:7])  # samples are examples
    assert len(samples) == 40 and np.isfinite(samples).all()
    assert np.array_equal(samples, model.sample(40, seed=1))
    assert result.manifest["prior"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", [m if m in TRACED else pytest.param(m, marks=pytest.mark.matrix) for m in MEMBERS])
@pytest.mark.filterwarnings("error::vaezoo.errors.VaezooWarning")  # "the plain step runs"
def test_one_graph_and_bf16(name, tmp_path, monkeypatch):
    """The step is one graph, which gives the same losses. In bfloat16 they stay near.

    Dynamo traces as for inductor. The graph runs eagerly, which takes seconds instead of a minute.
    """
    original = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, fullgraph, options: original(f, fullgraph=fullgraph, backend="eager")
    )
    plain, traced, half = (
        train_member(name, tmp_path / f"{i}", steps=3, compile=mode, precision=precision)
        for i, (mode, precision) in enumerate((("off", "fp32"), ("on", "fp32"), ("off", "bf16")))
    )
    values = [run.result["metrics"]["elbo"] for run in (plain, traced, half)]
    assert values[1] == pytest.approx(values[0], rel=1e-4)
    assert values[2] == pytest.approx(values[0], rel=0.05)
