"""The scripts in examples/, run with tiny settings."""

import importlib.util
import json
import runpy
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from vaezoo.data.base import TensorSplit
from vaezoo.data.images import digits as packaged_digits

EXAMPLES = Path(__file__).parents[1] / "examples"


def load_example(name):
    """Imports a script without running its main function."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small_digits(monkeypatch):
    load = packaged_digits.load
    few = lambda *arguments: tuple(TensorSplit(s.x[:240], s.y[:240]) for s in load(*arguments))  # noqa: E731
    monkeypatch.setattr(packaged_digits, "load", few)


def test_train_and_sample(small_digits, inside, capsys):
    load_example("train_and_sample").main(["--model", "mlp-vae", "--epochs", "2"])
    assert "epoch 2 of 2: ELBO" in capsys.readouterr().out
    for name in ("originals", "reconstructions", "samples"):
        assert Image.open(inside / "runs" / "example" / f"{name}.png").size == (8 * 30 + 2, 32)


def test_custom_objective(small_digits, inside, capsys):
    load_example("custom_objective").main(["--steps", "4"])
    assert "step 4 of 4: elbo" in capsys.readouterr().out
    assert (inside / "mmd-vae.safetensors").stat().st_size > 1000


@pytest.mark.slow
def test_notebook(small_digits, inside, capsys):
    """The code cells of the notebook run in order."""
    notebook = json.loads((EXAMPLES / "arrays_to_export.ipynb").read_text("utf-8"))
    assert notebook["nbformat"] == 4 and not any(cell.get("outputs") for cell in notebook["cells"])
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (inside / "notebook.py").write_text("\n\n".join(code), "utf-8")
    names = runpy.run_path(str(inside / "notebook.py"))
    assert names["run"].training.epochs == 4 and names["run"].result
    assert names["manifold"].exists() and (names["result"].path / "decoder.onnx").exists()
    assert "(2, 2) (2, 1, 28, 28)" in capsys.readouterr().out


@pytest.mark.slow
def test_serve_decoder(inside):
    example = load_example("serve_decoder")
    example.main(["export"])
    with example.make_server("exports/conv-vae-mnist", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/?n=4&seed=1", timeout=60) as response:
            assert Image.open(response).size == (4 * 28, 28)
        server.shutdown()
    code = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1]); import serve_decoder;"
        "serve_decoder.make_server('exports/conv-vae-mnist', 0).server_close()"
    )
    subprocess.run([sys.executable, "-c", code, str(EXAMPLES)], check=True)
