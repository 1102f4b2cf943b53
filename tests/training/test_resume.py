"""A training that is stopped anywhere, any number of times, and resumed ends in the same bytes as one that is not."""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from image_models import FAST, image_models
from PIL import Image

import vaezoo
from vaezoo import TrainConfig
from vaezoo.core import signals
from vaezoo.core.json_io import json_bytes
from vaezoo.errors import InputError, StorageError, VaezooError, VaezooWarning
from vaezoo.training import checkpoint, trainer
from vaezoo.training.checkpoint import list_checkpoints, not_finite

MODELS = image_models()
EPOCH = 6  # steps
STEPS = 3 * EPOCH
# Before the first step, after it, before a report and after it, an epoch's last steps, the next one's first, the end.
ANYWHERE = (0, 1, 3, 4, EPOCH - 1, EPOCH, EPOCH + 1, STEPS - 1, STEPS)
SETTINGS = {
    "plain": {},
    "accumulated": {"grad_accum_steps": 2, "optimizer": "adamw"},
    "averaged": {"ema_decay": 0.9, "optimizer": "rmsprop"},
    "warming up": {"kl_warmup": 10, "free_bits": 0.1, "clip_grad": 1.0, "binarize": "dynamic"},
    "scheduled": {"schedule": "cosine", "lr_warmup": 5, "optimizer": "adamax"},
    "bf16": {"precision": "bf16", "eval_every": 5},
    "augmented": {"augment": ("hflip", "shift=2", "crop=1"), "grad_accum_steps": 2},
}


@pytest.fixture(autouse=True)
def reports_often(monkeypatch):
    monkeypatch.setattr(trainer, "REPORT_EVERY", 4)


@pytest.fixture(scope="module")
def data(digits):
    x, y = digits.train.batch(slice(0, 20 * EPOCH * 10 // 9 + 1))
    x_test, y_test = digits.test.batch(slice(0, 50))
    return vaezoo.from_arrays(bytes_of(x), y, x_test=bytes_of(x_test), y_test=y_test)


def bytes_of(x):
    return (255 * x).round().byte().numpy().squeeze(1)


def contents(path):
    """The SHA-256 of each file of a run, by its name."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def asked_at(step):
    """What makes a training meet a real SIGTERM after so many steps; 0: before the first evaluation."""

    def on_start(trainer, path):
        class Asked(type(trainer.train_step)):
            def prepare(self, index):
                self.index = index
                return super().prepare(index)

            def run(self, x, y, scalars):
                super().run(x, y, scalars)
                if self.index + 1 == step:
                    signal.raise_signal(signal.SIGTERM)

        trainer.train_step.__class__ = Asked
        if trainer.global_step == step == 0:
            signal.raise_signal(signal.SIGTERM)

    return on_start


def stop_and_go(path, train, data, stops=ANYWHERE):
    """Trains with a stop after each of the steps, and returns the finished run."""
    for number, step in enumerate(stops):
        with signals.handle_signals(), pytest.raises(signals.Stopped) as e:
            if number:
                vaezoo.resume(path, data, on_start=asked_at(step))
            else:
                train(path, on_start=asked_at(step))
        assert e.value.exit_code == 143 and f"--resume {path}" in e.value.hint
        assert list_checkpoints(path / "checkpoints")[0][-1].step == step
    return vaezoo.resume(path, data)


def cases():
    """Each setting with one model is fast. Others are in the matrix, because test_members.py stops every model once."""
    for name in MODELS:
        for settings in SETTINGS:
            if settings in ("warming up", "scheduled", "averaged") and name not in FAST:
                continue  # not every objective has free bits
            marks = () if name == "mlp-vae" else pytest.mark.matrix
            yield pytest.param(name, settings, id=f"{settings}-{name}", marks=marks)


@pytest.mark.parametrize(("name", "settings"), list(cases()))
def test_resume_is_exact(name, settings, data, tmp_path):
    config = TrainConfig(epochs=3, batch_size=20, compile="off", **SETTINGS[settings])

    def train(path, **callbacks):
        return vaezoo.train(name, data, config=config, out=path, **callbacks)

    train(tmp_path / "whole")
    run = stop_and_go(tmp_path / "parts", train, data)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert run.result and run.checkpoint.step <= STEPS


def test_resume_restores_buffers(data, tmp_path):
    """The optimal sigma is a buffer, and the average has another value of it than the newest step."""
    images = dataclasses.replace(data, spec=dataclasses.replace(data.spec, likelihood="gaussian:optimal"))
    config = TrainConfig(epochs=3, batch_size=20, ema_decay=0.9)

    def train(path, **callbacks):
        return vaezoo.train("mlp-vae", images, config=config, out=path, **callbacks)

    train(tmp_path / "whole")
    stop_and_go(tmp_path / "parts", train, images, (1, EPOCH, STEPS - 1))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_compiled_resume_is_exact(data, tmp_path):
    def train(path, **callbacks):
        return vaezoo.train("mlp-vae", data, config=config, out=path, **callbacks)

    config = TrainConfig(epochs=3, batch_size=20, compile="on", ema_decay=0.9)
    train(tmp_path / "whole")
    stop_and_go(tmp_path / "parts", train, data, (0, 4, STEPS - 1))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_resume_is_exact(workers, data, tmp_path):
    for i, x in enumerate(data.train.x[:60, 0].numpy()):
        folder = tmp_path / "images" / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(folder / f"{i}.png")
    images = vaezoo.load_data(tmp_path / "images", stream=True)
    config = TrainConfig(steps=STEPS, batch_size=10, workers=workers)

    def train(path, **callbacks):
        return vaezoo.train("conv-vae", images, config=config, out=path, **callbacks)

    train(tmp_path / "whole")
    stop_and_go(tmp_path / "parts", train, None, (1, 7, 13))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("stop", [2, EPOCH, 2 * EPOCH, 2 * EPOCH + 1])
def test_early_stopping_resumes_its_count(stop, data, tmp_path):
    config = TrainConfig(epochs=9, batch_size=20, lr=0.3, optimizer="adamax", early_stopping=2)

    def train(path, **callbacks):
        return vaezoo.train("mlp-vae", data, config=config, out=path, **callbacks)

    train(tmp_path / "whole")
    last = list_checkpoints(tmp_path / "whole" / "checkpoints")[0][-1].step
    assert stop < last < 9 * EPOCH
    stop_and_go(tmp_path / "parts", train, data, (stop,))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.fixture
def stopped(data, tmp_path):
    """A run that was stopped after eight steps, and what it would have become."""
    config = TrainConfig(epochs=3, batch_size=20)
    vaezoo.train("mlp-vae", data, config=config, out=tmp_path / "whole")
    with signals.handle_signals(), pytest.raises(signals.Stopped):
        vaezoo.train("mlp-vae", data, config=config, out=tmp_path / "run", on_start=asked_at(8))
    return tmp_path / "run", contents(tmp_path / "whole")


def test_finished_run_is_unchanged(stopped, data):
    path, expected = stopped
    vaezoo.resume(path, data)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    run = vaezoo.resume(path, data, on_start=lambda trainer, path: pytest.fail("it trains"))
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    assert run.result["split"] == "test" and contents(path) == expected


def test_damaged_best_gives_another_result(stopped, data):
    path, _ = stopped
    run = vaezoo.resume(path, data)
    file = run.checkpoint.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.warns(VaezooWarning, match="its SHA-256 differs"):
        other = vaezoo.resume(path, data)
    assert other.result["step"] == other.checkpoint.step != run.checkpoint.step
    assert json.loads((path / "result.json").read_text()) == other.result != run.result


@pytest.mark.parametrize("part", ["model.safetensors", "training.safetensors", "state.json", "manifest.json"])
def test_damaged_newest_falls_back(part, stopped, data):
    path, expected = stopped
    file = path / "checkpoints" / "step-00000008" / part
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    steps = []
    with pytest.warns(VaezooWarning, match=r"step-00000008.*; using step 6"):
        vaezoo.resume(path, data, on_start=lambda trainer, path: steps.append(trainer.global_step))
    assert steps == [6] and contents(path) == expected


def test_damaged_run_is_not_overwritten(stopped, data):
    path, _ = stopped
    for file in path.glob("checkpoints/*/model.safetensors"):
        file.write_bytes(b"damaged")
    before = contents(path)
    with pytest.raises(InputError):
        vaezoo.resume(path, data)
    assert contents(path) == before


def test_run_without_checkpoint_restarts(stopped, data):
    path, expected = stopped
    shutil.rmtree(path / "checkpoints")
    (path / ".tmp-1-step").mkdir()
    (path / "metrics.jsonl").write_text("half a li")
    vaezoo.resume(path, data)
    assert contents(path) == expected


def test_log_is_truncated_to_checkpoint(stopped, data):
    path, expected = stopped
    with (path / "metrics.jsonl").open("a") as f:
        f.write('{"split": "train", "step": 9}\n{"half')
    vaezoo.resume(path, data)
    assert contents(path) == expected


def test_other_data_is_refused(stopped, digits):
    with pytest.raises(InputError, match="the data are not those"):
        vaezoo.resume(stopped[0], digits)
    with pytest.raises(VaezooError, match="arrays of a program"):
        vaezoo.resume(stopped[0])


def test_finished_run_keeps_the_arrays(stopped, data):
    path, _ = stopped
    assert vaezoo.resume(path, data).load_data() is data
    assert vaezoo.resume(path, data).load_data() is data  # nothing was left to train
    with pytest.raises(VaezooError, match="arrays of a program"):
        vaezoo.resume(path).load_data()


def test_locked_folder_is_refused(stopped, data):
    path, expected = stopped

    def on_start(trainer, _):
        with pytest.raises(StorageError, match="another process trains there"):
            vaezoo.resume(path, data)

    vaezoo.resume(path, data, on_start=on_start)
    assert contents(path) == expected


def test_changed_setup_warns(stopped, data):
    path, _ = stopped
    described = json.loads((path / "run.json").read_text())
    described["versions"]["torch"] = "2.10.0"
    (path / "run.json").write_text(json.dumps(described))
    with pytest.warns(VaezooWarning, match=r"PyTorch 2\.10\.0, now"):
        vaezoo.resume(path, data)


@pytest.mark.parametrize(
    "change",
    [
        {"global_step": "many"},
        {"global_step": None},
        {"metric_names": 5},
        {"metric_names": ["elbo"]},
        {"best_metric": "high"},
        {"log_bytes": -1},
        {"log_bytes": "all"},
    ],
)
def test_malformed_counters_are_refused(change, stopped, data):
    path, _ = stopped
    folder = path / "checkpoints" / "step-00000008"
    state, manifest = (json.loads((folder / name).read_text()) for name in ("state.json", "manifest.json"))
    state["counters"] |= change
    written = json_bytes(state)
    manifest["files"]["state.json"] = {"bytes": len(written), "sha256": hashlib.sha256(written).hexdigest()}
    (folder / "state.json").write_bytes(written)
    (folder / "manifest.json").write_bytes(json_bytes(manifest))
    with pytest.raises(InputError, match=r"does not hold the state of a training|the log has|holds other tensors"):
        vaezoo.resume(path, data)


def test_stop_during_evaluation_is_saved(data, tmp_path, monkeypatch):
    config = TrainConfig(epochs=3, batch_size=20)
    vaezoo.train("mlp-vae", data, config=config, out=tmp_path / "whole")
    path, original = tmp_path / "run", trainer.evaluate

    def evaluate(*args, **options):
        if trained and trained[0].global_step == EPOCH:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **options)

    trained = []
    with monkeypatch.context() as patch, signals.handle_signals(), pytest.raises(signals.Stopped) as e:
        patch.setattr(trainer, "evaluate", evaluate)
        vaezoo.train("mlp-vae", data, config=config, out=path, on_start=lambda t, _: trained.append(t))
    assert e.value.exit_code == 130
    newest = list_checkpoints(path / "checkpoints")[0][-1]
    assert newest.step == EPOCH and not newest.metrics
    vaezoo.resume(path, data)
    assert contents(path) == contents(tmp_path / "whole")


def test_unfinished_run_loads_best(stopped):
    path, _ = stopped
    run = vaezoo.load(path)
    assert run.checkpoint.metrics and not run.result
    assert vaezoo.load(path, "last").checkpoint.step == 8


def test_non_finite_weights_are_not_saved(data, tmp_path):
    vae = vaezoo.create_model("mlp-vae", data)
    with torch.no_grad():
        next(vae.parameters())[0] = float("nan")
    with pytest.raises(VaezooError, match="not finite"):
        checkpoint.save_checkpoint(tmp_path, {"model": vae.state_dict()}, 1, {}, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64])
def test_not_finite_finds_bad_values(dtype):
    large = torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)  # whose sum is infinite
    assert not_finite({"counts": torch.arange(3), "none": torch.empty(0), "large": large}) is None
    for bad in ([math.nan], [math.inf], [-math.inf], [math.inf, -math.inf]):
        broken = torch.cat([torch.ones(617, dtype=dtype), torch.tensor(bad, dtype=dtype)])
        assert not_finite({"large": large, "broken": broken}) == "broken"


def test_ema_follows_its_formula():
    from vaezoo.training.ema import ModelEMA

    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    average, expected = ModelEMA([p], 0.95), np.zeros(3)
    for n in range(50):
        with torch.no_grad():
            p.copy_(torch.full((3,), float(n + 1)))
        average.update(torch.tensor(float(n), dtype=torch.float64), torch.zeros(()))
        decay = min(0.95, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * (n + 1)
    np.testing.assert_allclose(average.values[0].numpy(), expected, rtol=1e-12)
    average.update(torch.tensor(50.0), torch.ones(()))
    np.testing.assert_allclose(average.values[0].numpy(), expected, rtol=1e-12)
    with average.applied():
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-12)
    assert p[0] == 50
