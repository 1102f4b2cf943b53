"""The scripts in examples/, run with tiny settings."""

import functools
import http.server
import importlib.util
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaezoo
from vaezoo.data.base import TensorSplit
from vaezoo.data.images import digits as packaged_digits

EXAMPLES = Path(__file__).parents[1] / "examples"
# Where `npm install` in examples/javascript put its packages, or where another one did.
NODE_MODULES = Path(os.environ.get("VAEZOO_NODE_MODULES", EXAMPLES / "javascript" / "node_modules"))
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


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
        seeds = [*range(6)] * 2
        with ThreadPoolExecutor(6) as pool:
            pages = list(pool.map(functools.partial(fetch, server.server_port), seeds))
        server.shutdown()
    model = vaezoo.runtime.load("exports/conv-vae-mnist")
    for seed, page in zip(seeds, pages, strict=True):
        assert Image.open(io.BytesIO(page)).size == (4 * 28, 28)
        assert page == example.sample_png(model, 4, seed)
    code = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1]); import serve_decoder;"
        "serve_decoder.make_server('exports/conv-vae-mnist', 0).server_close()"
    )
    subprocess.run([sys.executable, "-c", code, str(EXAMPLES)], check=True)


def fetch(port, seed):
    """Returns the page of a server with four images."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/?n=4&seed={seed}", timeout=60) as response:
        return response.read()


@pytest.fixture
def javascript(tmp_path, exported):
    """A copy of the example for Node and the web, with its packages and an export in it."""

    def prepare(package):
        if not (NODE_MODULES / package).is_dir():
            pytest.skip(f"{package} is not installed: run 'npm install' in examples/javascript")
        folder = shutil.copytree(
            EXAMPLES / "javascript", tmp_path / "examples" / "javascript", ignore=shutil.ignore_patterns("node_modules")
        )
        (folder / "node_modules").symlink_to(NODE_MODULES.resolve())
        shutil.copytree(exported.path, folder / "export")
        return folder

    return prepare


def run_node(folder, *arguments):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    done = subprocess.run(["node", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def node_error(folder, *arguments):
    """Runs sample.mjs, which must fail, and returns the line that it prints."""
    done = subprocess.run(
        ["node", "sample.mjs", *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr.strip()


def test_node_uses_what_is_there(javascript):
    folder = javascript("onnxruntime-node")
    (folder / "export" / "encoder.onnx").unlink()
    assert run_node(folder, "sample.mjs", "export", "2", "out.pgm") == "written out.pgm\n"
    (folder / "export" / "decoder.onnx").unlink()
    assert node_error(folder, "export") == "error: the export has no .onnx file: copy it, or export again"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "usage: node sample.mjs EXPORT [COUNT] [IMAGE] [SEED] [LABEL]"),
        (["nowhere"], "there is no manifest.json: give the folder of an export"),
        (["package.json"], "there is no manifest.json: give the folder of an export"),
        (["damaged"], "manifest.json is not that of an export"),
        (["broken"], "decoder.onnx cannot be loaded: "),
        (["encoder-only"], "the decoder is not there: copy decoder.onnx, or export it too"),
        (["export", "x"], "the count is NaN, not a whole number of at least 1"),
        (["export", "0"], "the count is 0, not a whole number of at least 1"),
        (["export", "2", "out.pgm", "a"], "the seed is NaN, not a whole number"),
        (["export", "2", "nowhere/out.pgm"], "ENOENT: no such file or directory, open 'nowhere/out.pgm'"),
        (["export", "2", "out.png"], "cannot write 'out.png': give a name that ends in .pgm"),
        (["export", "2", "out.pgm", "0", "3"], "the model takes no labels"),
        (["vector"], "the model makes data of shape 784, which are not images"),
    ],
)
def test_node_prints_one_line_on_errors(javascript, arguments, line):
    folder = javascript("onnxruntime-node")
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    for name in ("damaged", "broken", "encoder-only", "vector"):
        shutil.copytree(folder / "export", folder / name)
    (folder / "damaged" / "manifest.json").write_text("[1]")
    (folder / "broken" / "decoder.onnx").write_bytes(b"hello")
    (folder / "encoder-only" / "decoder.onnx").unlink()
    manifest = json.loads((folder / "vector" / "manifest.json").read_text())
    manifest["data"]["shape"] = [784]
    (folder / "vector" / "manifest.json").write_text(json.dumps(manifest))
    assert node_error(folder, *arguments).startswith(f"error: {line}")
    assert not (folder / "out.pgm").exists() and not (folder / "samples.pgm").exists()


def test_node(javascript, exported):
    folder = javascript("onnxruntime-node")
    assert run_node(folder, "sample.mjs", "export", "3", "out.pgm", "1") == "written out.pgm\n"
    assert Image.open(folder / "out.pgm").size == (3 * 28, 28)
    code = (
        "import * as ort from 'onnxruntime-node'; import { readFile } from 'node:fs/promises';"
        "import { loadVAE, normal } from './vae.mjs';"
        "const vae = await loadVAE(ort, (name) => readFile(`export/${name}`));"
        "const z = normal(32, 5), x = await vae.decode(z), { mu } = await vae.encode(x);"
        "console.log(JSON.stringify([z, x, mu].map((values) => [...values])));"
    )
    z, x, mu = map(np.float32, json.loads(run_node(folder, "--input-type=module", "-e", code)))
    model = vaezoo.runtime.load(exported.path)
    assert abs(z.mean()) < 0.5 and 0.6 < z.std() < 1.4
    images = model.decode(z.reshape(2, 16))
    np.testing.assert_allclose(x, images.ravel(), atol=1e-5)
    np.testing.assert_allclose(mu, model.encode(images)["mu"].ravel(), atol=1e-4)


def test_node_gives_labels(javascript, digits, tmp_path):
    folder = javascript("onnxruntime-node")
    run = vaezoo.train("cvae", digits, config=vaezoo.TrainConfig(steps=1), out=tmp_path / "run")
    vaezoo.export_onnx(run, folder / "conditional")
    assert run_node(folder, "sample.mjs", "conditional", "2", "out.pgm", "0", "7") == "written out.pgm\n"
    for label in ("10", "-1", "x"):
        line = f"error: label {'NaN' if label == 'x' else label} is not one of 0 to 9"
        assert node_error(folder, "conditional", "2", "out.pgm", "0", label) == line


@pytest.mark.slow
def test_web_page(javascript):
    folder = javascript("onnxruntime-web")
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # No sandbox: CI runs as root, for whom Chromium has none. The page is ours.
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000", "--dump-dom"]
        url = f"http://127.0.0.1:{server.server_port}/?n=4&seed=1"
        page = subprocess.run([*command, url], capture_output=True, text=True, timeout=120, check=True).stdout
        server.shutdown()
    assert "4 images of 28x28, mean 0." in page, page
    assert '<canvas id="images" width="112" height="28">' in page


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_from_training_to_node(inside, javascript):
    """The commands of docs/deployment.md, as they stand."""
    javascript("onnxruntime-node")
    text = (EXAMPLES.parent / "docs" / "deployment.md").read_text().split("## From training to Node")[1]
    commands = text.split("```sh\n")[1].split("```")[0]
    assert "--dtype int8" in commands and "npm install" in commands
    shim = inside / "bin"
    shim.mkdir()
    for name, line in {"vaezoo": f'exec {sys.executable} -m vaezoo_cli "$@"', "npm": "exit 0"}.items():
        (shim / name).write_text(f"#!/bin/sh\n{line}\n")
        (shim / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{shim}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e", "-c", commands], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Image.open(next(inside.rglob("samples.pgm"))).size == (8 * 28, 28)
