"""Data that are not images, from training to samples in files."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import Batch, Dataset, DataSpec, TensorSplit, TrainConfig, create_model, export_onnx, train, verify_onnx
from vaezoo.decoding import unroll
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation.likelihood import elbo
from vaezoo.vae import check_fits
from vaezoo_cli.main import main

pytestmark = pytest.mark.usefixtures("own_models")
CONFIG = TrainConfig(steps=40, batch_size=20, lr=0.01)
COLUMNS = ("age:real", "sex:2", "job:4")
SYMBOLS = ("", ".", "a", "b", "c")
SPECS = {
    "series": DataSpec(name="series", shape=(2, 6), kind="real", likelihood="gaussian:optimal"),
    "texts": DataSpec(name="texts", shape=(7,), kind="tokens", likelihood="categorical", vocabulary=5, symbols=SYMBOLS),
    "people": DataSpec(name="people", shape=(3,), kind="table", likelihood="table", columns=COLUMNS),
    "counts": DataSpec(name="counts", shape=(9,), kind="count", likelihood="zinb"),
}
MODELS = dict.fromkeys(SPECS, "mlp-vae") | {"sentences": "own-sentences"}


def make_data(name):
    generator = torch.Generator().manual_seed(0)
    spec = SPECS[name]
    x = spec.make_kind().example(100, spec.shape, generator)
    if name == "texts":  # two or more letters, then the end, then padding
        x = x.clamp(min=2)
        length = torch.randint(2, 7, (100, 1), generator=generator)
        place = torch.arange(7)
        x = torch.where(place < length, x, torch.where(place == length, 1, 0))
    return Dataset(spec=spec, train=TensorSplit(x[:80], None), valid=TensorSplit(x[80:], None), test=None)


@pytest.fixture(scope="module")
def runs(own_models, tmp_path_factory):
    folder, runs = tmp_path_factory.mktemp("kinds"), {}
    for name, model in MODELS.items():
        data = make_data("texts" if name == "sentences" else name)
        options = {"hidden": [16], "latent_dim": 3} if model == "mlp-vae" else {}
        run = train(model, data, options=options, config=CONFIG, out=folder / name)
        runs[name] = data, run, export_onnx(run, folder / f"{name}-export")
    return runs


@pytest.fixture(params=MODELS)
def case(request, runs):
    return request.param, *runs[request.param]


def test_runs_reload(case):
    name, data, run, _ = case
    again = vaezoo.load(run.path)
    assert again.data == data.spec and again.examples.y is None
    assert torch.equal(again.examples.x, data.valid.x) and again.examples.x.dtype == data.train.x.dtype
    assert torch.equal(again.vae.reconstruct(data.valid.x), run.vae.reconstruct(data.valid.x)), name


def test_runs_are_evaluated(case):
    _, data, run, _ = case
    result = vaezoo.evaluate(run, data, metrics=["elbo", "nll"], nll_samples=10)
    values = {metric.name: metric.value for metric in result.metrics}
    assert values["NLL-10"] <= values["-ELBO"] + 0.1  # two estimates with other z
    observed = float(data.spec.make_kind().count(data.valid.x).mean())
    assert values["bits per dimension"] == pytest.approx(values["-ELBO"] / np.log(2) / observed)
    assert values["NLL-10 per dimension"] == pytest.approx(values["NLL-10"] / np.log(2) / observed)
    assert f"of kind {data.spec.kind}" in result.metrics[0].protocol


@pytest.mark.parametrize("metric", ["reconstructions", "nearest-neighbour", "fid"])
def test_pixel_metrics_are_refused(metric, case):
    _, data, run, _ = case
    with pytest.raises(UnsupportedDataError, match=f"metric '{metric}' is for data in"):
        vaezoo.evaluate(run, data, metrics=[metric])


def test_binarizing_is_refused(case, tmp_path):
    name, data, run, _ = case
    with pytest.raises(VaezooError, match="cannot be binarized"):
        vaezoo.evaluate(run, data, binarize="fixed")
    with pytest.raises(VaezooError, match="cannot be binarized"):
        train(MODELS[name], data, config=TrainConfig(steps=1, batch_size=20, binarize="dynamic"), out=tmp_path / "r")
    with pytest.raises(UnsupportedDataError, match="uint8"):
        export_onnx(run, tmp_path / "export", uint8=True)


def test_other_kinds_do_not_fit(case):
    _, data, run, _ = case
    others = [spec for spec in SPECS.values() if spec.kind != data.spec.kind]
    for other in others:
        with pytest.raises(UnsupportedDataError, match=f"is of kind {other.kind}"):
            check_fits(run.vae, other)
    check_fits(run.vae, data.spec)


def test_vocabularies_and_columns_must_fit(runs):
    texts = DataSpec(name="t", shape=(7,), kind="tokens", likelihood="categorical", vocabulary=6)
    with pytest.raises(UnsupportedDataError, match="tokens with a vocabulary of 6, but the model was made for"):
        check_fits(runs["texts"][1].vae, texts)
    people = DataSpec(name="p", shape=(3,), kind="table", likelihood="table", columns=("a:real", "sex:2", "job:4"))
    with pytest.raises(UnsupportedDataError, match="columns a:real, sex:2, job:4"):
        check_fits(runs["people"][1].vae, people)


def test_exports_equal_the_run(case):
    name, data, run, exported = case
    assert verify_onnx(exported.path).parity
    model, x = vaezoo.runtime.load(exported.path), data.valid.x
    for n in (1, 3, 20):
        fields = model.encode(x[:n].numpy())
        with torch.no_grad():
            np.testing.assert_allclose(fields["mu"], run.vae.encode(x[:n]).mu, atol=1e-5, rtol=1e-4)
    output = exported.manifest["graphs"]["decoder"]["outputs"][0]["name"]
    assert output == {"series": "x_mean", "counts": "x_mean", "people": "columns"}.get(name, "logits")
    again, expected = model.reconstruct(x.numpy()), run.vae.reconstruct(x).detach().numpy()
    assert again.dtype == expected.dtype
    np.testing.assert_allclose(again, expected, atol=1e-5, rtol=1e-4)
    if name == "people":
        columns = model.decode(model.encode(x.numpy())["mu"])
        assert columns.shape == (20, 1 + 2 + 4)
        np.testing.assert_allclose(columns[:, 3:].sum(1), 1, atol=1e-5)


def test_samples_are_valid(case):
    name, data, run, exported = case
    model = vaezoo.runtime.load(exported.path)
    torch.manual_seed(0)
    for x in (run.vae.sample(30).detach().numpy(), model.sample(30)):
        assert len(x) == 30 and np.isfinite(x).all()
        if data.spec.kind == "tokens":
            assert x.shape == (30, 7) and x.dtype == np.int64 and 0 <= x.min() <= x.max() < 5
    np.testing.assert_array_equal(model.sample(30, seed=4), model.sample(30, seed=4))
    if name == "sentences":  # the ids are drawn, too, so other seeds give other texts for the same latents
        ended = np.cumsum(x == 1, 1) - (x == 1) > 0
        assert (x[ended] == 0).all() and len({tuple(row) for row in x.tolist()}) > 5


@pytest.mark.parametrize(
    ("name", "x", "words"),
    [
        ("texts", np.full((2, 7), 5), "x has ids from 5 to 5"),
        ("texts", np.full((2, 7), -1), "x has ids from -1 to -1"),
        ("texts", np.zeros((2, 7), np.float32), "accepts token ids, not float32"),
        ("texts", np.zeros((2, 6), int), "x has shape (2, 6)"),
        ("people", np.full((2, 3), 2.0), "column 'sex' has values from 2 to 2"),
        ("people", np.full((2, 3), -1.0), "column 'sex' has values from -1 to -1"),
        ("people", np.zeros((2, 3), int), "accepts floats, not int64"),
        ("series", np.zeros((2, 2, 5), np.float32), "x has shape (2, 2, 5)"),
    ],
)
def test_runtime_refuses_wrong_values(name, x, words, runs):
    model = vaezoo.runtime.load(runs[name][2].path)
    with pytest.raises(VaezooError) as e:
        model.encode(x)
    assert words in e.value.message and e.value.hint


def test_real_values_have_no_range(runs):
    model = vaezoo.runtime.load(runs["series"][2].path)
    assert np.isfinite(model.encode(np.full((2, 2, 6), -30.0))["mu"]).all()


def test_greedy_texts_are_equal(runs):
    _, run, exported = runs["sentences"]
    z = torch.randn(25, 3, generator=torch.Generator().manual_seed(0))
    model = vaezoo.runtime.load(exported.path)
    assert exported.manifest["autoregressive"] == {"length": 7, "end_id": 1}
    assert exported.manifest["graphs"]["decoder"]["inputs"][1] == {"name": "x", "dtype": "int64", "shape": ["batch", 7]}
    greedy = unroll(run.vae, z, greedy=True)
    np.testing.assert_array_equal(model.decode_latents(z.numpy(), None, None), greedy)
    with torch.no_grad():  # each id is the most probable one after those before it
        logits = run.vae.decode(z, greedy)
    ended = (greedy == 1).cumsum(1) - (greedy == 1).long() > 0
    assert torch.equal(torch.where(ended, 0, logits.argmax(-1)), greedy)


def test_texts_are_drawn_with_their_odds(runs):
    _, run, exported = runs["sentences"]
    z = torch.zeros(20_000, 3)
    torch.manual_seed(0)
    first = unroll(run.vae, z)[:, 0].bincount(minlength=5) / len(z)
    with torch.no_grad():
        expected = torch.softmax(run.vae.decode(z[:1], torch.zeros(1, 7, dtype=torch.int64))[0, 0], 0)
    torch.testing.assert_close(first, expected, atol=0.02, rtol=0)
    model = vaezoo.runtime.load(exported.path)
    drawn = model.decode_latents(z.numpy(), None, np.random.default_rng(0))[:, 0]
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / len(z), expected, atol=0.02)


def test_teacher_forcing_sees_no_future(runs):
    _, run, _ = runs["sentences"]
    x = run.examples.x.clone()
    z = torch.zeros(len(x), 3)
    with torch.no_grad():
        before = run.vae.generate(z, Batch(x))
        x[:, 4:] = 3
        after = run.vae.generate(z, Batch(x))
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_padding_leaves_the_elbo(runs):
    data, run, _ = runs["texts"]
    estimate = elbo(run.vae, data.valid, num_samples=1)
    assert estimate.bits_per_dim > -estimate.elbo.value / 7 / np.log(2)  # the texts are shorter than 7


def command(*arguments):
    with pytest.raises(SystemExit) as e:
        main([str(a) for a in arguments])
    return e.value.code


@pytest.mark.parametrize("source", ["run", pytest.param("export", marks=pytest.mark.slow)])
def test_commands_write_files(source, case, inside, capsys):
    name, data, run, exported = case
    path, kind = (run.path if source == "run" else exported.path), data.spec.kind
    suffix = {"tokens": ".txt", "table": ".csv"}.get(kind, ".npy")
    assert command("sample", path, "-n", 12, "--seed", 1, "--out", f"a{suffix}") == 0
    assert command("sample", path, "-n", 12, "--seed", 1, "--out", f"b{suffix}") == 0
    file = Path(f"a{suffix}")
    assert file.read_bytes() == Path(f"b{suffix}").read_bytes()
    if kind == "tokens":
        lines = file.read_text().splitlines()
        assert len(lines) == 12 and set("".join(lines)) <= set(".abc") and len(set(lines)) > (name == "sentences")
    elif kind == "table":
        rows = list(csv.reader(file.read_text().splitlines()))
        assert rows[0] == ["age", "sex", "job"] and len(rows) == 13
        assert all(0 <= int(row[1]) < 2 and 0 <= int(row[2]) < 4 and np.isfinite(float(row[0])) for row in rows[1:])
    else:
        assert np.load(file).shape == (12, *data.spec.shape)
    capsys.readouterr()
    assert command("sample", path, "--out", "a.png") == 2
    assert f"give a name that ends in {suffix} or" in capsys.readouterr().err
    assert not Path("a.png").exists()


def test_texts_need_no_symbols(runs, inside, tmp_path):
    from vaezoo_cli.render.values import text_lines

    ids = np.array([[2, 3, 1, 0], [4, 0, 0, 0], [0, 0, 0, 0]])
    assert text_lines(ids, {"symbols": SYMBOLS}) == ["ab.", "c", ""]
    assert text_lines(ids, {"symbols": ()}) == ["2 3 1", "4", ""]


def test_plots_need_images(runs, inside, capsys):
    for kind in ("traversals", "interpolation"):
        assert command("plot", runs["people"][1].path, "--kind", kind) != 0
        assert "is not an image" in capsys.readouterr().err


def test_models_of_images_refuse_texts():
    with pytest.raises(UnsupportedDataError):
        create_model("conv-vae", SPECS["texts"])
    with pytest.raises(UnsupportedDataError):
        create_model("conv-vae", SPECS["people"])
