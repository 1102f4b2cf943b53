"""A third-party package, installed for real: the example of this repository, and one that `new-plugin` writes."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vaezoo.testing import CHECKS
from vaezoo_cli.main import main

EXAMPLE = Path(__file__).parent / "plugin"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Returns a function that builds a package's wheel and installs it, without the network."""

    def install(folder):
        dist, site = tmp_path / "dist", tmp_path / "site"
        build = ("build", "--wheel", "--no-isolation", "--outdir", str(dist), str(folder))
        subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True)
        (wheel,) = dist.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        monkeypatch.syspath_prepend(site)
        monkeypatch.setenv("PYTHONPATH", str(site))

    return install


@pytest.fixture
def vaezoo(capsys):
    """Returns a function that runs a command line, which has to succeed: its stdout."""

    def vaezoo(*arguments):
        with pytest.raises(SystemExit) as e:
            main(list(arguments))
        captured = capsys.readouterr()
        assert e.value.code == 0, captured.err
        return captured.out

    return vaezoo


def own_tests(folder):
    """Runs a package's own tests in a process of their own and returns what pytest prints."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder / "tests")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_the_example_is_listed_checked_trained_and_exported(vaezoo, install, inside):
    install(EXAMPLE)
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
    assert {row["contestant"] for row in result["rows"]} >= {"eager", "ort-cpu"}


def test_its_own_test_passes(install):
    install(EXAMPLE)
    assert f"{len(CHECKS)} passed" in own_tests(EXAMPLE)


def test_a_new_plugin_passes_its_check_and_is_listed(vaezoo, install, inside):
    vaezoo("new-plugin", "my-vae")
    written = inside / "vaezoo-my-vae"
    texts = [p.name + p.read_text() for p in written.rglob("*") if p.is_file()]
    assert len(texts) == 4 and not [t for t in texts if "__NAME__" in t or "__MODULE__" in t]
    install(written)
    assert "my-vae" in vaezoo("list")
    assert "FAIL" not in vaezoo("check", "my-vae")
    assert f"{len(CHECKS)} passed" in own_tests(written)
