"""Makes a run a pretrained model: `python -m scripts.make_pretrained RUN NAME --recipe RECIPE --data-dir FOLDER`.

The figures on the card are those of the files that were written, loaded again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import nn

from vaezoo import pretrained
from vaezoo.core.atomic import atomic_dir, read_file, write_file
from vaezoo.core.json_io import json_bytes, read_json
from vaezoo.data.load import load_data
from vaezoo.evaluation.evaluate import evaluate
from vaezoo.pretrained.card import card_text
from vaezoo.recipes import find_recipe
from vaezoo.training.checkpoint import save_checkpoint
from vaezoo.training.run import EXAMPLES, MAX_EXAMPLES_BYTES, RESULT, Run, load
from vaezoo.training.run_writer import CHECKPOINTS, LOG, read_log

LICENCES = {
    "mnist": "CC BY-SA 3.0: some of MNIST's digits lie with it, and it was trained on them",
    "digits": "CC BY-SA 3.0: some of MNIST's digits lie with it, and it was trained on them",
    "shapes": "MIT, as vaezoo: its data are generated",
}
CHECKED = ("elbo", "reconstructions")  # on so many of the data that come with the package, where a test repeats them
CHECKED_EXAMPLES = 500


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.make_pretrained", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--metrics", default="elbo", help="groups of figures on the data that it was trained on")
    parser.add_argument("--out", type=Path, default=pretrained.FOLDER, help="where to")
    args = parser.parse_args()
    make(load(args.run), args.out / args.name, args.recipe, args.data_dir, args.metrics.split(","))


def make(run: Run, folder: Path, recipe: str, data_dir: str | None, metrics: list[str]) -> None:
    """Writes the folder: first the run, then what is measured with it."""
    assert run.source is not None
    with atomic_dir(folder, replace=True) as work:
        write_run(run, work)
    small = load(folder, halved=True)
    trained_on = run.load_data(data_dir)
    packaged = load_data("shapes" if run.source.data == "shapes" else "digits")
    before, how = evaluate(run, trained_on).metrics[0].value, find_recipe(recipe).evaluation
    evaluations = [evaluate(small, trained_on, metrics=metrics)]
    if how.metric == "nll":
        asked = {"nll_samples": how.samples, "binarize": how.binarize, "limit": how.limit}
        evaluations.append(evaluate(small, trained_on, metrics=["nll"], **asked))  # type: ignore[arg-type]
    if packaged.spec.name != trained_on.spec.name:
        evaluations.append(evaluate(small, packaged, metrics=CHECKED, limit=CHECKED_EXAMPLES))
    card = {
        "schema": pretrained.SCHEMA,
        "model": run.model,
        "data": run.source.data,
        "recipe": find_recipe(recipe).name,
        "license": LICENCES[run.source.data],
        "sha256": small.checkpoint.model_sha256,
        "parameters": sum(p.numel() for p in run.vae.parameters()),
        "rounding": evaluations[0].metrics[0].value - before,  # type: ignore[operator]  # -ELBO is one number
        "evaluations": [e.as_dict() for e in evaluations],
    }
    write_file(folder / pretrained.CARD, json_bytes(card))
    write_file(folder / "README.md", card_text(pretrained.read_card(folder)).encode())


def write_run(run: Run, work: Path) -> None:
    """Writes what stays of a run: nothing of the machine that trained it, and of the log what was evaluated."""
    described = read_json(run.path / "run.json")
    assert isinstance(described["source"], dict)
    described["source"]["data_dir"] = None
    (work / "run.json").write_bytes(json_bytes(described))
    (work / RESULT).write_bytes(json_bytes(read_json(run.path / RESULT)))
    (work / EXAMPLES).write_bytes(read_file(run.path / EXAMPLES, MAX_EXAMPLES_BYTES))
    lines = [report for report in read_log(run.path) if report["split"] == "valid"]
    (work / LOG).write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
    parts = {"model": half(run.vae), "objective": half(run.objective)}
    save_checkpoint(work / CHECKPOINTS, parts, run.checkpoint.step, run.checkpoint.metrics, {})


def half(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns a module's weights, those in float32 rounded to float16."""
    return {name: t.half() if t.dtype == torch.float32 else t for name, t in module.state_dict().items()}


if __name__ == "__main__":
    main()
