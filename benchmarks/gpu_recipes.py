"""Train a recipe with the schedule of its paper, in several visits to a GPU machine if one is too short.

    python benchmarks/gpu_recipes.py NAME --data-dir FOLDER --runs FOLDER --out FOLDER [--resume FOLDER]

A request to end (SIGTERM) stops the training after it has saved. The run is then in --out as NAME.tar.gz.0 and further
parts, which are small enough to carry away. The next visit gives the folder of these parts as --resume. When the run is
finished, its row is in --out as recipes-cuda.json or recipes-cpu.json, in the form of results/recipes-cpu.json.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import vaezoo
from recipes import PACKAGES, evaluate
from reference_model import choose_data
from vaezoo.core import signals
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment, gpu_environment
from vaezoo.core.json_io import json_bytes
from vaezoo.recipes import Recipe, RecipeEvaluation

PART_BYTES = 15 << 20  # of one part of a packed run
SECONDS = "seconds.json"  # in a run folder: seconds of training in all visits

# The schedules of the papers, where they differ from the recipes. They are in steps of 57,000 training examples.
BURDA_EPOCH, GATED_EPOCH = 57_000 // 20, 57_000 // 100
PAPERS: Mapping[str, Mapping[str, Any]] = {
    # Burda et al. 2016: 3^i epochs at 1e-3 * 10^(-i / 7) for i = 0 ... 7, in batches of 20, without KL warm-up.
    "burda-1l": {
        "epochs": 3280,
        "batch_size": 20,
        "schedule": "multistep",
        "milestones": tuple(BURDA_EPOCH * (3**i - 1) // 2 for i in range(1, 8)),
        "lr_gamma": 10 ** (-1 / 7),
        "kl_warmup": 0,
        "eval_every": 10 * BURDA_EPOCH,
    },
    # Tomczak and Welling 2018: a constant rate, at most 2,000 epochs, early stopping after 50 without improvement.
    "gated-300-300-40": {
        "epochs": 2000,
        "schedule": "constant",
        "eval_every": 5 * GATED_EPOCH,
        "early_stopping": 10,
    },
}
TINY: Mapping[str, Any] = {"steps": 40, "batch_size": 20, "eval_every": 20, "compile": "off"}
TINY_EVALUATION = RecipeEvaluation(metric="nll", binarize="fixed", samples=10, limit=20)


def paper_recipe(name: str, device: str, tiny: bool) -> Recipe:
    """Returns a recipe with the schedule of its paper, compiled, on a device. `tiny` makes it take seconds."""
    recipe = vaezoo.find_recipe(name)
    training = replace(recipe.training, **PAPERS[name], compile="on", device=device)
    if not tiny:
        return replace(recipe, training=training)
    training = replace(training, **TINY, schedule="constant", milestones=(), early_stopping=None)
    return replace(recipe, training=training, evaluation=TINY_EVALUATION)


def train(recipe: Recipe, data: vaezoo.Dataset, path: Path) -> vaezoo.Run:
    """Trains a recipe in a run folder, or continues there. The seconds that it took are added up in the folder."""
    start = time.monotonic()
    try:
        if (path / "run.json").exists():
            return vaezoo.resume(path, data, device=recipe.training.device)
        return vaezoo.train(recipe.model, data, options=recipe.options, config=recipe.training, out=path)
    finally:
        if path.exists():
            seconds = read_seconds(path) + time.monotonic() - start
            write_file(path / SECONDS, json_bytes({"seconds": round(seconds, 1)}))


def read_seconds(path: Path) -> float:
    """Returns the seconds of training in all visits so far."""
    file = path / SECONDS
    return float(json.loads(file.read_text())["seconds"]) if file.exists() else 0.0


def make_row(recipe: Recipe, run: vaezoo.Run, data: vaezoo.Dataset) -> dict[str, Any]:
    """Evaluates a finished run and returns its row, in the form of results/recipes-cpu.json."""
    gpu = {"gpu": gpu_environment()} if recipe.training.device == "cuda" else {}
    return {
        "recipe": recipe.name,
        "minutes": float(f"{read_seconds(run.path) / 60:.3g}"),
        "environment": {**environment(PACKAGES), **gpu},
        "threads": torch.get_num_threads(),
        "evaluation": evaluate(recipe, run, data).as_dict(),
    }


def write_row(file: Path, row: dict[str, Any]) -> None:
    """Writes a row into a file, beside the rows of other recipes."""
    old = json.loads(file.read_text("utf-8"))["rows"] if file.exists() else []
    rows = {r["recipe"]: r for r in (*old, row)}
    write_file(file, json_bytes({"schema": 1, "rows": list(rows.values())}))


def pack(path: Path, out: Path) -> None:
    """Packs a run folder into parts `NAME.tar.gz.0`, `NAME.tar.gz.1` and so on."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        archive.add(path, path.name)
    data = stream.getvalue()
    for old in out.glob(f"{path.name}.tar.gz.*"):
        old.unlink()
    for number, start in enumerate(range(0, len(data), PART_BYTES)):
        write_file(out / f"{path.name}.tar.gz.{number}", data[start : start + PART_BYTES])


def unpack(folder: Path, path: Path) -> None:
    """Unpacks the parts of a run folder to `path`, unless there are none or `path` exists."""
    parts = sorted(folder.glob(f"{path.name}.tar.gz.*"), key=lambda part: int(part.suffix[1:]))
    if parts and not path.exists():
        data = b"".join(part.read_bytes() for part in parts)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            archive.extractall(path.parent, filter="data")


def main() -> None:
    """Trains, evaluates, packs the run, and prints what happened as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(PAPERS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--data-dir", type=Path, help="folder of torchvision's MNIST")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results and of the packed run")
    parser.add_argument("--resume", type=Path, help="folder of the parts of an earlier visit")
    parser.add_argument("--tiny", action="store_true", help="take seconds, to try the script")
    args = parser.parse_args()
    recipe, path = paper_recipe(args.name, args.device, args.tiny), args.runs / args.name
    name = choose_data(args.data_dir) if args.tiny else recipe.data
    data = vaezoo.load_data(name, data_dir=args.data_dir, likelihood=recipe.likelihood)
    if args.resume:
        unpack(args.resume, path)
    result: dict[str, Any] = {"recipe": args.name}
    try:
        with signals.handle_signals():
            row = make_row(recipe, train(recipe, data, path), data)
            write_row(args.out / f"recipes-{args.device}.json", row)
            values = {metric["name"]: metric["value"] for metric in row["evaluation"]["metrics"]}
            result["metrics"] = {name: value for name, value in values.items() if not isinstance(value, list | tuple)}
    except signals.Stopped as stopped:
        result["stopped"] = stopped.hint
    finally:
        if path.exists():
            pack(path, args.out)
    result["seconds"] = read_seconds(path)
    sys.stdout.write(f"\n{json.dumps(result)}\n")


if __name__ == "__main__":
    main()
