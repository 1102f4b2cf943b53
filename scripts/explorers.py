"""Writes a page of `vaezoo explore` for each built-in model, from a short training on packaged data.

    python scripts/explorers.py              all models
    python scripts/explorers.py NAME ...     some of them

    build/explorers/NAME/       a page
    build/explorers/runtime/    onnxruntime-web, which all pages share

A model with a pretrained version is shown with its weights. Finished pages and runs are kept, and stopped runs are
resumed. Delete a folder to make it again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import vaezoo
from vaezoo.errors import VaezooError
from vaezoo.explore.page import copy_runtime, is_page, write_page
from vaezoo.explore.web_runtime import WASM, find_runtime
from zoo_runs import FITTED, built_in, find_or_train, with_prior

BUILD = Path(__file__).parents[1] / "build"
BATCH_SIZE = 64
STEPS = 1_000
FEWER_STEPS: Mapping[str, int] = {}  # of models whose steps are slow


def config_of(name: str) -> vaezoo.TrainConfig:
    """Returns the settings of a short training. The rate falls to 0, because that helps most in few steps."""
    steps = FEWER_STEPS.get(name, STEPS)
    # Not once an epoch: an epoch of the small data sets has few steps.
    return vaezoo.TrainConfig(steps=steps, batch_size=BATCH_SIZE, schedule="cosine", eval_every=max(1, steps // 4))


def run_of(name: str, folder: Path) -> vaezoo.Run:
    """Returns the run that a page shows: a pretrained one, or that in `folder`, which is trained if needed."""
    pretrained = {card.model: card.name for card in vaezoo.list_pretrained()}
    if name in pretrained:
        return vaezoo.load(pretrained[name])
    run = find_or_train(name, folder, config_of(name))
    # Exports hold no prior that draws codes one by one.
    return run if FITTED.get(name) == "autoregressive" else with_prior(name, run, folder)


def make_page(name: str, out: Path, runs: Path, runtime: Mapping[str, Path]) -> str:
    """Writes the page of a model, unless it is there, and returns what was done."""
    if is_page(out / name):
        return "kept"
    start = time.perf_counter()
    run = run_of(name, runs)
    with tempfile.TemporaryDirectory() as folder:
        export = vaezoo.export_onnx(run, Path(folder) / name)
        write_page(export.path, out / name, runtime, run.path.name, runtime_url="../runtime/")
    return f"{run.data.name}, step {run.checkpoint.step:,}, in {time.perf_counter() - start:.0f} s"


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the pages of what is named, with a line for each. The exit code is 1 if a model that is named has none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models; default: all")
    parser.add_argument("--out", type=Path, default=BUILD / "explorers", help="folder of the pages")
    parser.add_argument("--runs", type=Path, default=BUILD / "explorer-runs", help="folder of the runs")
    parser.add_argument("--runtime", metavar="FOLDER", help="a copy of onnxruntime-web; default: it is fetched once")
    args = parser.parse_args(arguments)
    found = find_runtime(args.runtime)
    runtime = {file: found[file] for file in WASM}  # that of WebGPU has 27 MB more
    copy_runtime(runtime, args.out / "runtime")
    failed = False
    for name in args.names or built_in():
        try:
            print(f"{name}: {make_page(name, args.out, args.runs, runtime)}", flush=True)
        except VaezooError as e:
            failed = True
            print(f"{name}: no page, because {e.message}", flush=True)
    sys.exit(failed and bool(args.names))


if __name__ == "__main__":
    main()
