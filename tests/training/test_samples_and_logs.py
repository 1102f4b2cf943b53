"""Images during a training and the log as a table: they change nothing, and a resumed run has the same."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from test_resume import contents

import vaezoo
from vaezoo import TrainConfig
from vaezoo.errors import InputError, VaezooError


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).random((120, 8, 8), np.float32)
    return vaezoo.from_arrays(x, np.arange(120) % 3, name="small")


@pytest.fixture
def train(data, tmp_path):
    def train(name, model="mlp-vae", **settings):
        config = TrainConfig(**({"batch_size": 20, "epochs": 2, "ema_decay": 0.9} | settings))
        return vaezoo.train(model, data, options={"latent_dim": 2}, config=config, out=tmp_path / name)

    return train


@pytest.mark.parametrize("model", ["mlp-vae", "cvae"])
def test_samples_change_nothing(model, train):
    plain, drawn = (contents(train(name, model, **s).path) for name, s in (("a", {}), ("b", {"samples_every": 3})))
    extra = {f"samples/step-{step:08d}.png" for step in (3, 6, 9)}
    assert drawn.keys() - plain.keys() == extra
    assert {name for name in plain if plain[name] != drawn[name]} == {"run.json"}


def test_samples_are_of_the_same_latents(train):
    run = train("run", samples_every=5, lr=1e-12)
    first, last = (np.asarray(Image.open(run.path / "samples" / f"step-{step:08d}.png")) for step in (5, 10))
    assert first.shape == (8 * 66 + 2, 8 * 66 + 2) and np.array_equal(first, last)
    assert len(np.unique(first)) > 20


def test_resumed_run_has_the_same_files(data, train, tmp_path):
    whole = train("run", samples_every=3, log_csv=True)
    before = contents(whole.path)
    assert "metrics.csv" in before
    (whole.path / "result.json").unlink()
    for name in ("checkpoints/step-00000010", "samples"):
        shutil.rmtree(whole.path / name)
    (whole.path / "samples").mkdir()
    steps = []  # of the table when the training goes on: those after its checkpoint are gone
    vaezoo.resume(whole.path, data, on_start=lambda _, path: steps.extend(steps_of(path / "metrics.csv")))
    assert max(steps) == 5
    after = contents(whole.path)
    lost = {f"samples/step-{step:08d}.png" for step in (3,)}  # before the checkpoint of step 5
    assert after == {name: digest for name, digest in before.items() if name not in lost}


def test_resumed_run_may_begin_to_write_them(data, train):
    run = train("run")
    vaezoo.resume(run.path, data, epochs=3, samples_every=2, log_csv=True)
    assert [file.name for file in sorted((run.path / "samples").iterdir())] == [
        f"step-{step:08d}.png" for step in (12, 14)
    ]
    assert max(steps_of(run.path / "metrics.csv")) == 15
    assert vaezoo.load(run.path).training.samples_every is None  # the settings of the run stay


def steps_of(table):
    return [int(row["step"]) for row in csv.DictReader(table.read_text().splitlines())]


def test_table_holds_the_log(train):
    run = train("run", log_csv=True)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader((run.path / "metrics.csv").open()))
    assert [(row["split"], int(row["step"]), float(row["elbo"])) for row in rows] == [
        (line["split"], line["step"], line["elbo"]) for line in lines
    ]


def test_other_data_are_refused(tmp_path):
    vectors = vaezoo.from_arrays(np.random.default_rng(0).random((120, 6), np.float32))
    config = TrainConfig(samples_every=5, batch_size=20)
    with pytest.raises(VaezooError, match="samples_every draws images") as e:
        vaezoo.train("mlp-vae", vectors, config=config, out=tmp_path / "run")
    assert "vaezoo sample" in e.value.hint and not (tmp_path / "run").exists()


def test_linked_folder_of_samples_is_refused(data, train, tmp_path):
    run = train("run", samples_every=3)
    shutil.rmtree(run.path / "samples")
    (tmp_path / "elsewhere").mkdir()
    (run.path / "samples").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        vaezoo.resume(run.path, data, epochs=3)
