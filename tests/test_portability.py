"""vaezoo works where fcntl, resource and /proc do not exist, as on Windows; tests/portability emulates that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulation is for Linux")

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).with_name("portability")),
    "OMP_NUM_THREADS": "1",
    "PYTHONIOENCODING": "cp1252",  # of a pipe on Windows
    "USERNAME": "user",  # Windows has no user numbers
}
IMPORT_ALL = """
import importlib, pkgutil, signal
import vaezoo, vaezoo_cli
try:
    import fcntl
except ImportError:
    pass
else:
    raise SystemExit("the emulation does not work")
for package in (vaezoo, vaezoo_cli):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__") and ".template" not in module.name:
            importlib.import_module(module.name)
"""
STOP_EARLY = """
import signal, vaezoo
from vaezoo import signals
try:
    with signals.handle_signals():
        config = vaezoo.TrainConfig(steps=3, eval_every=1, batch_size=20)
        stop = lambda report: signal.raise_signal(signal.SIGTERM)
        vaezoo.train("mlp-vae", vaezoo.load_data("digits"), config=config, out="run", on_report=stop)
except signals.Stopped as e:
    print(e.exit_code)
"""
USE_RUNTIME = """
import numpy as np
from vaezoo import runtime
vae = runtime.load("exports/run")
images = vae.sample(2, seed=0)
assert images.shape == (2, 1, 28, 28) and np.isfinite(images).all()
"""
RUN_COMMANDS = """
import shlex, sys
from vaezoo_cli.main import main
for command in sys.argv[1:]:
    try:
        main(shlex.split(command))
    except SystemExit as e:
        assert not e.code, command
"""
COMMANDS = (
    "train --resume run",
    "sample run",
    "reconstruct run",
    "encode run",
    "eval run --limit 20",
    "export run --onnx",
    "export run --onnx",  # replaces the folder
    "verify exports/run",
    "sample exports/run",
    "plot run --kind latents",
    "list",
    "show mlp-vae",
    "doctor",
    "new-plugin my-vae",
)


def python(code: str, folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, encoding="cp1252")
    assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_all_modules_import(tmp_path):
    python(IMPORT_ALL, tmp_path)


@pytest.mark.slow
def test_commands_work(tmp_path):
    assert python(STOP_EARLY, tmp_path) == "143\n"
    python(RUN_COMMANDS, tmp_path, *COMMANDS)
    python(USE_RUNTIME, tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 3
    assert not list(tmp_path.rglob(".tmp-*"))
