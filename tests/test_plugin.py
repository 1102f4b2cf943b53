"""Third-party packages: the example in tests/plugin, and a package that `new-plugin` writes."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vaezoo import get_model, list_models
from vaezoo.testing import CHECKS
from vaezoo_cli.main import main

EXAMPLE = Path(__file__).parent / "plugin"


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


def run_own_tests(folder):
    """Runs the tests of a package in a subprocess and returns the output of pytest."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder / "tests")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_example_conforms(install):
    install("vaezoo-linear", "linear", (EXAMPLE / "vaezoo_linear.py").read_text())
    assert "vaezoo-linear/linear" in {registration.full_name for registration in list_models()}
    for check in CHECKS:
        if check.__name__ != "check_onnx":  # which takes three seconds
            check(get_model("linear"))


@pytest.mark.slow
def test_example_works_with_commands(vaezoo, install_wheel, inside):
    install_wheel(EXAMPLE)
    rows = {row["name"]: row for row in json.loads(vaezoo("list", "--json"))["models"]}
    assert (rows["linear"]["distribution"], rows["linear"]["version"]) == ("vaezoo-linear", "0.3.0")
    assert len(CHECKS) == vaezoo("check", "linear").count("ok  ")
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
    assert f"{len(CHECKS)} passed" in run_own_tests(EXAMPLE)


@pytest.mark.slow
def test_new_plugin_conforms(vaezoo, install_wheel, inside):
    vaezoo("new-plugin", "my-vae")
    package = inside / "vaezoo-my-vae"
    texts = [p.name + p.read_text() for p in package.rglob("*") if p.is_file()]
    assert len(texts) == 4 and not [t for t in texts if "__NAME__" in t or "__MODULE__" in t]
    install_wheel(package)
    assert "my-vae" in vaezoo("list")
    assert "FAIL" not in vaezoo("check", "my-vae")
    assert f"{len(CHECKS)} passed" in run_own_tests(package)
