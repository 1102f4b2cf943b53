"""Third-party packages: the example in tests/plugin, and the packages that `new-plugin` writes."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
from torch import distributions as D

from vaezoo import Batch, DataSpec, DiagonalGaussian, StepContext, create_model, get_model, list_models, load_data
from vaezoo.likelihoods.make import make_likelihood
from vaezoo.priors.mixture import VampPrior
from vaezoo.testing import CHECKS, run_checks, with_likelihood
from vaezoo.vae import example_batch
from vaezoo_cli.commands.new_plugin import KINDS
from vaezoo_cli.main import main

EXAMPLE = Path(__file__).parent / "plugin"
DOCS = Path(__file__).parents[1] / "docs" / "plugins.md"
FAST_CHECKS = [check for check in CHECKS if check.__name__ != "check_onnx"]  # which takes three seconds
# Lines of code besides imports and docstrings.
MAX_LINES = {"plain": 25, "conditional": 40, "prior": 50}
MAX_OTHER_LINES = 60


@pytest.fixture
def install_wheel(tmp_path, monkeypatch):
    """Returns a function that builds the wheel of a package and installs it, without the network."""

    def install_wheel(folder):
        dist, site = tmp_path / "dist", tmp_path / "site"
        build = ("build", "--wheel", "--no-isolation", "--outdir", str(dist), str(folder))
        subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True)
        (wheel,) = dist.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        monkeypatch.syspath_prepend(site)
        monkeypatch.setenv("PYTHONPATH", str(site))

    return install_wheel


@pytest.fixture
def vaezoo(capsys):
    """Returns a function that runs a command, which must succeed, and returns its stdout."""

    def vaezoo(*arguments):
        with pytest.raises(SystemExit) as e:
            main(list(arguments))
        captured = capsys.readouterr()
        assert e.value.code == 0, captured.err
        return captured.out

    return vaezoo


@pytest.fixture
def package(vaezoo, inside, monkeypatch):
    """Returns a function that writes the package of a kind, registers it without a wheel, and returns its module."""

    def package(kind):
        vaezoo("new-plugin", f"my-{kind}", "--kind", kind)
        folder = inside / f"vaezoo-my-{kind}"
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        info = folder / f"vaezoo_my_{kind}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
        groups = project["entry-points"].items()
        texts = [f"[{group}]\n" + "".join(f"{n} = {o}\n" for n, o in names.items()) for group, names in groups]
        (info / "entry_points.txt").write_text("\n".join(texts))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, f"vaezoo_my_{kind}", raising=False)
        return importlib.import_module(f"vaezoo_my_{kind}")

    return package


def run_own_tests(folder):
    """Runs the tests of a package in a subprocess. Returns how many passed, were skipped, failed and had errors."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder / "tests")]
    output = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|skipped|failed|error)", output.splitlines()[-1])}
    return [counts.get(word, 0) for word in ("passed", "skipped", "failed", "error")]


def spec_of(kind):
    """Returns the model that checks the installed package of a kind."""
    return with_likelihood(get_model("mlp-vae"), "my-likelihood") if kind == "likelihood" else get_model(f"my-{kind}")


def code_lines(path):
    """Returns the number of lines of a module without imports, docstrings, comments and blank lines."""
    text = path.read_text()
    left_out = set()
    for node in ast.walk(ast.parse(text)):
        docstring = node.body[0] if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) else None
        is_docstring = isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
        found = node if isinstance(node, (ast.Import, ast.ImportFrom)) else docstring if is_docstring else None
        if found is not None:
            left_out |= set(range(found.lineno, found.end_lineno + 1))
    lines = [line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in left_out]
    return len([line for line in lines if line and not line.startswith("#")])


def test_example_conforms(install):
    install("vaezoo-linear", "linear", (EXAMPLE / "vaezoo_linear.py").read_text())
    assert "vaezoo-linear/linear" in {registration.full_name for registration in list_models()}
    results = list(run_checks(get_model("linear"), FAST_CHECKS))
    assert [r.failure for r in results] == [None] * len(results)
    assert {r.name for r in results if r.skipped} == {"autoregressive", "labels", "sizes"}


@pytest.mark.slow
def test_example_works_with_commands(vaezoo, install_wheel, inside):
    install_wheel(EXAMPLE)
    rows = {row["name"]: row for row in json.loads(vaezoo("list", "--json"))["models"]}
    assert (rows["linear"]["distribution"], rows["linear"]["version"]) == ("vaezoo-linear", "0.3.0")
    checked = vaezoo("check", "linear").splitlines()
    assert len(checked) == len(CHECKS) and all(line.startswith(("ok  ", "skip  ")) for line in checked)
    assert "skip  labels: the model is not given labels" in checked
    vaezoo("train", "linear", "-o", "latent_dim=5", "--steps", "10", "--out", "run")
    vaezoo("sample", "run")
    manifest = json.loads(vaezoo("export", "run", "--onnx", "--out", "exported", "--json"))
    assert manifest["model"] == "vaezoo-linear/linear" and manifest["versions"]["vaezoo-linear"] == "0.3.0"
    assert {row["output"] for row in manifest["parity"]["rows"]} == {"mu", "logvar", "x_mean"}
    assert "ok" in vaezoo("verify", "exported")
    vaezoo("sample", "exported")
    vaezoo("export", "run", "--onnx", "--out", "small", "--dtype", "fp16", "--uint8")
    assert "ok" in vaezoo("verify", "small")
    result = json.loads(vaezoo("bench", "run", "--batch", "2", "--seconds", "0.001", "--json", "-"))
    assert {row["backend"] for row in result["rows"]} >= {"eager", "ort-cpu"}


@pytest.mark.slow
def test_example_passes_own_tests(install_wheel):
    install_wheel(EXAMPLE)
    assert run_own_tests(EXAMPLE) == [len(CHECKS) - 3, 3, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_new_plugin_conforms(kind, package):
    package(kind)
    results = list(run_checks(spec_of(kind), FAST_CHECKS))
    assert [(r.name, r.failure) for r in results if r.failure] == []


def test_show_counts_own_parameters(package, vaezoo):
    package("codes")  # its codebook is a parameter of the model itself
    shown = json.loads(vaezoo("show", "my-codes", "--json"))["inputs"][0]["parameters"]
    vae = create_model("my-codes", DataSpec(name="images", shape=(1, 28, 28)))
    assert shown["model"] == vae.codebook.numel() and sum(shown.values()) == sum(p.numel() for p in vae.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_new_plugin_is_short(kind, vaezoo, inside):
    vaezoo("new-plugin", "mine", "--kind", kind, "--out", "out")
    texts = [p.name + p.read_text() for p in (inside / "out").rglob("*") if p.is_file()]
    assert len(texts) == 4 and not re.findall(r"__[A-Z_]+__", "".join(texts))
    assert code_lines(inside / "out" / "vaezoo_mine.py") <= MAX_LINES.get(kind, MAX_OTHER_LINES)


@pytest.mark.parametrize("kind", KINDS)
def test_docs_show_the_module(kind, vaezoo, inside):
    name = "my-vae" if kind == "plain" else f"my-{kind}"
    vaezoo("new-plugin", name, "--kind", kind, "--out", "out")
    (module,) = (inside / "out").glob("*.py")
    code = module.read_text().partition("from __future__ import annotations\n")[2].strip()
    assert f"```python\n{code}\n```" in DOCS.read_text()


# One of each form of pyproject.toml.
FORMS = ("plain", "posterior", "likelihood")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [k if k in FORMS else pytest.param(k, marks=pytest.mark.matrix) for k in KINDS])
def test_new_plugin_installs(kind, vaezoo, install_wheel, inside):
    vaezoo("new-plugin", f"my-{kind}", "--kind", kind)
    package = inside / f"vaezoo-my-{kind}"
    install_wheel(package)
    checked = KINDS[kind].check.replace("__NAME__", f"my-{kind}").split()
    assert "FAIL" not in vaezoo("check", *checked)
    if kind != "likelihood":  # the example's own tests run elsewhere
        return
    passed, skipped, *failed = run_own_tests(package)
    assert passed + skipped == len(CHECKS) and failed == [0, 0]


def test_parts_fit_other_networks(package):
    data = load_data("digits").spec
    for kind, option in (("posterior", "steps"), ("prior", "components")):
        module = package(kind)
        vae = create_model("conv-vae", data, {kind: f"my-{kind}", f"{kind}.{option}": "3"})
        batch = example_batch(data, 5, torch.Generator().manual_seed(0))
        vae(vae.infer(batch), batch, at_sample=True)
        made = vae.head.steps if kind == "posterior" else len(vae.prior.components()[0])
        assert made == 3 and module.Part().part == f"my-{kind}"


def test_planar_flow_has_its_determinant(package):
    torch.manual_seed(0)
    head = package("posterior").PlanarHead(3, 2).double()
    posterior = head(3 * torch.randn(4, *head.inputs, dtype=torch.float64))
    z = torch.randn(4, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda z: posterior.flow(z)[0].sum(0), z).transpose(0, 1)
    torch.testing.assert_close(posterior.flow(z)[1], torch.linalg.slogdet(jacobian).logabsdet)


def test_pseudo_inputs_are_a_vamp_prior(package):
    package("prior")
    vae = create_model("my-prior", DataSpec(name="images", shape=(1, 4, 4)), {"prior.components": 5})
    reference = VampPrior(16, vae.encode, vae.prior.inputs_before_sigmoid.detach(), torch.sigmoid)
    z = torch.randn(7, *vae.latent_shape)
    torch.testing.assert_close(vae.prior.log_prob(z), reference.log_prob(z), rtol=1e-4, atol=1e-4)
    noise = torch.randn(7, *vae.prior.noise_shape)
    torch.testing.assert_close(vae.prior.from_noise(noise), reference.from_noise(noise))


def test_dip_penalty_is_a_covariance(package):
    vae = create_model("mlp-vae", DataSpec(name="vectors", shape=(6,)), {"latent_dim": 3})
    batch = example_batch(vae.data, 40, torch.Generator().manual_seed(0))
    objective = package("objective").Part(weight=2.0).build(vae.data, vae.latent_shape)
    torch.manual_seed(1)
    output = objective(vae, batch, StepContext.initial())
    torch.manual_seed(1)
    z = vae.infer(batch).rsample()
    penalty = (torch.cov(z.T, correction=0) - torch.eye(3)).square().sum()
    torch.testing.assert_close(output.metrics["penalty"], penalty)
    torch.testing.assert_close(output.losses["vae"], 2 * penalty - output.metrics["elbo"])


def test_student_t_equals_pytorch(package):
    package("likelihood")
    params, x = torch.randn(9, 4), torch.randn(9, 4)
    expected = D.StudentT(5.0, params, 0.3).log_prob(x).sum(1)
    torch.testing.assert_close(make_likelihood("my-likelihood:0.3", "real").log_prob(params, x), expected)
    expected = D.StudentT(5.0, torch.sigmoid(params), 0.1).log_prob(x).sum(1)
    torch.testing.assert_close(make_likelihood("my-likelihood").log_prob(params, x), expected)


def test_codes_learn_their_frequencies(package):
    package("codes")
    vae = create_model("my-codes", DataSpec(name="vectors", shape=(6,)), {"positions": 3, "codebook_size": 4})
    codes = torch.tensor([[0, 3, 3], [1, 3, 3]])
    with torch.no_grad():
        vae.prior.scores.copy_(torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4])).expand(3, 4))
    expected = torch.log(torch.tensor([0.1 * 0.4 * 0.4, 0.2 * 0.4 * 0.4]))
    torch.testing.assert_close(vae.prior.log_prob(codes), expected)
    features = vae.codebook[codes] + 0.01
    batch = Batch(torch.rand(2, 6))
    output = vae(package_codes(vae, features), batch)
    torch.testing.assert_close(output.auxiliary_loss, torch.full((2,), 1.25 * 24 * 1e-4))
    torch.testing.assert_close(output.params, vae.decode(codes))


def package_codes(vae, features):
    """Returns the posterior of a codebook model for features."""
    distances = (features.unsqueeze(2) - vae.codebook).square().sum(3)
    return type(vae.encode(torch.rand(1, 6)))(distances.argmin(2), features)


def test_levels_are_drawn_downwards(package):
    package("hierarchy")
    vae = create_model("my-hierarchy", DataSpec(name="vectors", shape=(6,)), {"upper": 2, "lower": 3})
    z = torch.randn(5, 5)
    upper, lower = z[:, :2], z[:, 2:]
    mu, logvar = DiagonalGaussian.from_raw(*vae.prior.network(upper).chunk(2, 1))
    expected = D.Normal(0.0, 1.0).log_prob(upper).sum(1) + D.Normal(mu, (0.5 * logvar).exp()).log_prob(lower).sum(1)
    torch.testing.assert_close(vae.prior.log_prob(z), expected)
    posterior = vae.encode(torch.rand(5, 6))
    mean = posterior.lower(posterior.mu).mu
    torch.testing.assert_close(posterior.mode(), torch.cat([posterior.mu, mean], 1))


@pytest.mark.slow
def test_likelihood_is_stated_everywhere(package, vaezoo, inside, capsys):
    package("likelihood")
    vaezoo("train", "mlp-vae", "-o", "hidden=20", "--likelihood", "my-likelihood:0.3", "--steps", "3", "--out", "run")
    assert json.loads((inside / "run" / "run.json").read_text())["data"]["likelihood"] == "my-likelihood:0.3"
    vaezoo("eval", "run", "--metrics", "elbo", "--limit", "50")
    manifest = json.loads(vaezoo("export", "run", "--onnx", "--out", "exported", "--json"))
    assert manifest["data"]["likelihood"] == "my-likelihood:0.3"
    vaezoo("sample", "exported")
    with pytest.raises(SystemExit) as e:
        main(["eval", "exported", "--metrics", "elbo"])
    assert e.value.code == 2 and "its likelihood needs more than the mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "name", "what"),
    [("prior", "vamp", "prior"), ("prior", "mlp-vae", "model"), ("likelihood", "gaussian", "likelihood")],
)
def test_known_names_are_refused(kind, name, what, inside, capsys):
    with pytest.raises(SystemExit) as e:
        main(["new-plugin", name, "--kind", kind])
    assert e.value.code == 2 and f"a {what} named '{name}' already exists" in capsys.readouterr().err
    assert not list(inside.iterdir())


def test_run_of_uninstalled_package_names_it(install, inside, vaezoo, capsys):
    install("vaezoo-linear", "linear", (EXAMPLE / "vaezoo_linear.py").read_text())
    vaezoo("train", "linear", "--steps", "2", "--out", "runs/mine")
    run = inside / "runs" / "mine" / "run.json"
    run.write_text(run.read_text().replace("vaezoo-linear/linear", "vaezoo-gone/gone"))
    with pytest.raises(SystemExit):
        main(["eval", "gone"])
    error = capsys.readouterr().err
    assert "vaezoo-gone" in error and "install" in error
