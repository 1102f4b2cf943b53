"""Tables from training to the runtime: missing cells are left out, and files of results look like the table."""

import csv
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import vaezoo
from vaezoo import Batch, DataSpec, TrainConfig
from vaezoo.data.kinds import make_kind
from vaezoo.evaluation.onnx_tables import ExportedTable
from vaezoo.likelihoods.make import make_likelihood
from vaezoo.likelihoods.table import Table
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.posteriors.full_gaussian import FullGaussian
from vaezoo.runtime.tables import draw_rows
from vaezoo.vae import VAE
from vaezoo_cli.main import main

RNG = np.random.default_rng(0)
CONFIG = TrainConfig(steps=30, batch_size=16, lr=0.01)


def make_csv(path, n=60):
    rng = np.random.default_rng(0)
    rows = [
        [f"{rng.normal(40, 9):.1f}" if i % 7 else "", rng.poisson(3), "fm"[i % 2], f"2020-01-{i % 28 + 1:02}", i]
        for i in range(n)
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["age", "visits", "sex", "day", "id"], *rows])
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    data = make_csv(folder / "people.csv")
    options = {"latent_dim": 2, "hidden": [8]}
    run = vaezoo.train("mlp-vae", data, options=options, config=CONFIG, out=folder / "run")
    return data, run


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return vaezoo.export_onnx(trained[1], tmp_path_factory.mktemp("export") / "export").path


@pytest.fixture(params=["run", pytest.param("export", marks=pytest.mark.slow)])
def path(request, trained):
    """The folder of the run, and of its export."""
    return trained[1].path if request.param == "run" else request.getfixturevalue("exported")


def command(*arguments):
    with pytest.raises(SystemExit) as e:
        main([str(a) for a in arguments])
    return e.value.code


def read(path):
    with open(path) as file:
        return list(csv.DictReader(file))


class LinearGaussian(VAE):
    """p(z) = N(0, I), p(x|z) = N(W z + b, s^2), with the exact posterior of the observed cells as q(z|x)."""

    def __init__(self, weight, bias, logvar):
        names = tuple(f"c{i}:real?" for i in range(len(bias)))
        super().__init__(
            DataSpec(name="l", shape=(len(bias),), kind="table", likelihood="table", columns=names), (weight.shape[1],)
        )
        self.weight, self.bias, self.logvar = weight, bias, logvar

    def encode(self, x):
        means, factors = [], []
        for row in x:
            seen = ~row.isnan()
            w, variance = self.weight[seen], self.logvar[seen].exp()
            covariance = torch.linalg.inv(torch.eye(w.shape[1]) + w.T @ (w / variance[:, None]))
            means.append(covariance @ (w.T @ ((row[seen] - self.bias[seen]) / variance)))
            factors.append(torch.linalg.cholesky(covariance))
        return FullGaussian(torch.stack(means), torch.stack(factors))

    def decode(self, z):
        raw = 6.0 * torch.atanh(self.logvar / 6.0)  # the likelihood bounds it
        mean = z @ self.weight.T + self.bias
        return torch.stack([mean, raw.expand_as(mean)], 2).flatten(1)


def test_elbo_with_missing_cells_is_the_marginal_of_the_others():
    """With the exact posterior the bound is tight: it is the closed form of log p(observed cells)."""
    torch.manual_seed(0)
    weight, bias, logvar = torch.randn(5, 2), torch.randn(5), torch.randn(5) / 2
    vae = LinearGaussian(weight, bias, logvar)
    x = torch.randn(6, 5)
    for row in range(1, 6):
        x[row, torch.randperm(5)[: row - 1]] = torch.nan
    rows = x.repeat_interleave(4000, 0)
    terms = elbo_terms(vae, Batch(rows))
    means = -(terms.reconstruction + terms.kl_terms.sum(1)).view(len(x), -1).mean(1)
    covariance = weight @ weight.T + torch.diag(logvar.exp())
    for row, bound in zip(x, means, strict=True):
        seen = ~row.isnan()
        exact = multivariate_normal(bias[seen], covariance[seen][:, seen]).logpdf(row[seen])
        assert float(bound) == pytest.approx(exact, abs=0.05)


def test_missing_cells_are_left_out_of_the_likelihood():
    likelihood = Table(("a:real?", "b:3?", "c:real"))
    params = torch.randn(1, likelihood.params_shape((3,))[0], requires_grad=True)
    nan = math.nan
    whole = likelihood.log_prob(params, torch.tensor([[0.3, 2.0, -1.0]]))
    parts = [
        likelihood.log_prob(params, torch.tensor([row])) for row in ([0.3, nan, nan], [nan, 2.0, nan], [nan, nan, -1])
    ]
    assert torch.allclose(sum(parts), whole)
    likelihood.log_prob(params, torch.tensor([[nan, nan, nan]])).sum().backward()
    assert torch.equal(params.grad, torch.zeros_like(params))


def test_encoder_is_given_the_mask():
    spec = DataSpec(name="t", shape=(3,), kind="table", likelihood="table", columns=("a:real?", "b:2?", "c:real"))
    nan = math.nan
    features = spec.features(torch.tensor([[0.0, 1.0, 5.0], [nan, nan, 5.0]]))
    assert features.tolist() == [[0, 1, 0, 1, 5], [0, 0, 0, 0, 5]]  # a, observed, b one-hot, c
    kind = spec.make_kind()
    assert kind.count(torch.tensor([[0.0, nan, 1.0]])).tolist() == [2]
    assert not kind.accepts(torch.tensor([[0.0, 1.0, nan]])) and kind.accepts(torch.tensor([[nan, nan, 1.0]]))


def test_results_look_like_the_table(path, trained, inside):
    data, _ = trained
    assert command("sample", path, "-n", 9, "--out", "s.csv") == 0
    assert command("reconstruct", path, "--data", data, "--out", "r.csv") == 0
    for rows, count in ((read("s.csv"), 9), (read("r.csv"), 60)):
        assert len(rows) == count and list(rows[0]) == ["age", "visits", "sex", "day"]
        for row in rows:
            assert row["sex"] in "fm" and row["day"][:4].isdigit() and int(row["visits"]) is not None
            assert len(row["age"].partition(".")[2]) == 1
    pytest.importorskip("pyarrow")
    assert command("sample", path, "-n", 9, "--out", "s.parquet") == 0
    from pyarrow import parquet

    types = [str(field.type) for field in parquet.read_table("s.parquet").schema]
    assert types == ["double", "int64", "string", "date32[day]"]


def test_new_files_are_scored_and_encoded(path, trained, inside, capsys):
    data, _ = trained
    assert command("score", path, "--data", data) == 0
    assert len(capsys.readouterr().out.splitlines()) == 61
    assert command("encode", path, "--data", data, "--out", "z.npz") == 0
    assert np.isfinite(np.load("z.npz")["mu"]).all()
    assert command("eval", path, "--data", data) == 0
    text = data.read_text().replace(",f,", ",x,", 1)
    (data.parent / "new.csv").write_text(text)
    capsys.readouterr()
    assert command("score", path, "--data", data.parent / "new.csv") == 3
    assert "line 2 of" in (error := capsys.readouterr().err) and "'x' is not a category of the training" in error


@pytest.mark.slow
def test_runtime_reads_and_writes_cells(trained, exported):
    data, run = trained
    model = vaezoo.runtime.load(exported)
    rows = read(data)
    table = {name: [row[name] for row in rows] for name in rows[0]}
    x = model.from_table(table)
    np.testing.assert_array_equal(x, vaezoo.load_examples(run, data).split.x.numpy())
    cells = model.to_table(x)
    assert [str(cell or "") for cell in cells["age"]] == [row["age"] for row in rows]
    assert cells["visits"].tolist() == [int(row["visits"]) for row in rows]
    np.testing.assert_allclose(model.encode(x)["mu"], run.encode(data)["mu"], atol=1e-5)
    with pytest.raises(vaezoo.VaezooError, match="row 0, column 'sex': 'x' is not a category"):
        model.from_table({**table, "sex": ["x"] * 60})
    with pytest.raises(vaezoo.VaezooError, match="different numbers of rows"):
        model.from_table({**table, "sex": ["f"]})


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["table", "table:modes"])
def test_exports_draw_from_the_same_distribution(likelihood, tmp_path):
    torch.manual_seed(0)
    spec = DataSpec(
        name="t", shape=(3,), kind="table", likelihood=likelihood, columns=("a:real", "b:3", "c:real"),
        column_formats=("continuous", "category", "continuous"), categories=((), ("x", "y", "z"), ()),
    )  # fmt: skip
    vae = vaezoo.create_model("mlp-vae", spec, {"latent_dim": 2, "hidden": [8]})
    if likelihood == "table:modes":
        x = torch.randn(300, 3)
        x[:, 0] = torch.where(x[:, 2] > 0, 3.0, -3.0) + 0.1 * x[:, 0]
        vae.likelihood.init_from_data(vaezoo.TensorSplit(x, None))
    model = vaezoo.runtime.load(vaezoo.export_onnx(vae, tmp_path / "export").path)
    z = np.repeat(np.array([[0.5, -1.0]], np.float32), 20_000, 0)
    a, b = (vaezoo.decode(m, z, draw=True) for m in (vae, model))
    for column in (0, 2):
        assert a[:, column].mean() == pytest.approx(b[:, column].mean(), abs=0.1)
        assert a[:, column].std() == pytest.approx(b[:, column].std(), rel=0.05)
    np.testing.assert_allclose(
        *(np.bincount(rows[:, 1].astype(int), minlength=3) / 20_000 for rows in (a, b)), atol=0.02
    )
    assert vaezoo.reconstruct(model, a[:7], draw=True, seed=1).shape == (7, 3)
    rows = vaezoo.sample(model, 9, draw=True, where=["b=y"])
    assert (rows[:, 1] == 1).all() and np.array_equal(rows, vaezoo.sample(model, 9, draw=True, where=["b=y"]))


@pytest.mark.parametrize("name", ["table", "table:modes"])
@pytest.mark.parametrize("columns", [("a:real?", "b:3", "c:real"), ("b:3", "d:2")])
def test_outputs_of_a_decoder_are_the_distribution(name, columns):
    torch.manual_seed(0)
    likelihood = make_likelihood(name, "table", 0, columns)
    kind = make_kind("table", columns=columns)
    x = kind.example(200, (len(columns),), torch.Generator().manual_seed(0))
    likelihood.init_from_data(vaezoo.TensorSplit(x, None))
    params = torch.randn(200, *likelihood.params_shape((len(columns),)))
    with torch.no_grad():
        outputs = {key: value.numpy() for key, value in likelihood.outputs(params).items()}
        components = outputs["mode_means"].shape[2] if "mode_means" in outputs else 1
        exported = ExportedTable(columns, components)
        theirs = exported.to_params(outputs)
        torch.testing.assert_close(exported.log_prob(theirs, x), likelihood.log_prob(params, x), atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(exported.mean(theirs), likelihood.mean(params), atol=1e-4, rtol=1e-4)
        rows = theirs[:1].expand(8000, -1)
        ours = likelihood.sample(params[:1].expand(8000, -1))
        torch.testing.assert_close(exported.sample(rows).mean(0), ours.mean(0), atol=0.25, rtol=0.1)
        drawn = draw_rows({"columns": [*columns]}, {k: v[:1].repeat(8000, 0) for k, v in outputs.items()}, RNG)
        torch.testing.assert_close(torch.from_numpy(drawn).mean(0), ours.mean(0), atol=0.25, rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp-vae", "tvae"])
def test_exports_are_scored_as_their_runs(model, trained, tmp_path):
    data, *_ = trained
    run = vaezoo.train(model, data, options={"latent_dim": 2, "hidden": [8]}, config=CONFIG, out=tmp_path / "run")
    export = vaezoo.runtime.load(vaezoo.export_onnx(run, tmp_path / "export").path)
    ours, theirs = (vaezoo.score(m, data, nll_samples=5, limit=20) for m in (run, export))
    np.testing.assert_allclose(theirs.reconstruction, ours.reconstruction, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(theirs.nll, ours.nll, rtol=1e-3, atol=1e-3)
    values = {m.name: m.value for m in vaezoo.evaluate(export, data, metrics=["elbo"]).metrics}
    assert np.isfinite(values["-ELBO"])


def test_runs_on_tables_resume(trained, tmp_path, capsys):
    data, *_ = trained
    arguments = ["train", "mlp-vae", "--data", data, "-o", "latent_dim=2", "-o", "hidden=8", "--batch-size", 16]
    arguments += ["--columns", "visits=continuous", "--resume", tmp_path / "run", "--device", "cpu"]
    assert command(*arguments, "--steps", 4) == 0
    lines = capsys.readouterr().err
    assert "column   visits: continuous" in lines and "age: continuous, " in lines and "left out 'id'" in lines
    assert command(*arguments, "--steps", 8) == 0
    again = vaezoo.load(tmp_path / "run")
    assert again.checkpoint.step <= 8 and again.data.column_formats[1] == "continuous:0"
    assert again.load_data().spec == again.data
    capsys.readouterr()
    assert command(*arguments, "--columns", "sex=identifier") != 0
    assert "was started with --columns" in capsys.readouterr().err


def test_missing_cells_are_imputed(path, trained, inside):
    data, run = trained
    assert command("reconstruct", path, "--data", data, "--impute", "--out", "i.csv") == 0
    for before, after in zip(read(data), read("i.csv"), strict=True):
        assert after["age"] and all(after[name] == before[name] for name in after if before[name])
    with pytest.raises(vaezoo.UnsupportedDataError, match="no missing cells"):
        vaezoo.reconstruct(vaezoo.create_model("mlp-vae", DataSpec(name="v", shape=(2,))), np.ones((1, 2)), impute=True)
    values = np.array([[np.nan, 3.0, 1.0, 18262.0]])
    assert np.isfinite(vaezoo.reconstruct(run, values)).all()
    assert run.reconstruct(values, impute=True)[0, 1:].tolist() == pytest.approx([3, 1, 18262])
    with pytest.raises(vaezoo.VaezooError, match="not data of kind table"):
        vaezoo.reconstruct(run, np.array([[40.0, 3.0, np.nan, 18262.0]]))  # no cell of it was missing
