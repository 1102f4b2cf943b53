"""Make a pretrained model from a run.

python scripts/make_pretrained.py RUN NAME --recipe RECIPE --data-dir FOLDER

The metrics on the card are computed after loading the written files.
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
from vaezoo.training.run import Run, load
from vaezoo.training.run_files import EXAMPLES, MAX_EXAMPLES_BYTES, RESULT
from vaezoo.training.run_writer import CHECKPOINTS, LOG, read_log

LICENSES = {
    "mnist": "CC BY-SA 3.0, because it was trained on MNIST and some of MNIST's digits are included",
    "digits": "CC BY-SA 3.0, because it was trained on MNIST's digits and some of them are included",
    "shapes": "MIT, like vaezoo, because the data are generated",
}
PACKAGED_METRICS = ("elbo", "reconstructions")  # computed also on packaged data, so that a test can repeat them
PACKAGED_EXAMPLES = 500


def main() -> None:
    """Parses the arguments and makes the folder."""
    parser = argparse.ArgumentParser(
        prog="python scripts/make_pretrained.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="name of the pretrained model, MODEL-DATA")
    parser.add_argument("--recipe", required=True, help="name of the recipe that the run was trained with")
    parser.add_argument("--data-dir", help="folder of the data set that the run was trained on")
    parser.add_argument("--metrics", default="elbo", help="groups of metrics on that data set, separated by commas")
    parser.add_argument("--out", type=Path, default=pretrained.FOLDER, help="parent folder of the result")
    args = parser.parse_args()
    make_pretrained(load(args.run), args.out / args.name, args.recipe, args.data_dir, args.metrics.split(","))


def make_pretrained(run: Run, folder: Path, recipe_name: str, data_dir: str | None, metrics: list[str]) -> None:
    """Writes the folder: first the run, then a card with the metrics of the written run."""
    assert run.source is not None
    with atomic_dir(folder, replace=True) as work:
        write_run(run, work)
    rounded = load(folder, fp16=True)
    data = run.load_data(data_dir)
    packaged = load_data("shapes" if run.source.data == "shapes" else "digits")
    recipe = find_recipe(recipe_name)
    original_loss = evaluate(run, data).metrics[0].value
    evaluations = [evaluate(rounded, data, metrics=metrics)]
    if recipe.evaluation.metric == "nll":
        nll = evaluate(
            rounded,
            data,
            metrics=["nll"],
            nll_samples=recipe.evaluation.samples,
            binarize=recipe.evaluation.binarize,
            limit=recipe.evaluation.limit,
        )
        evaluations.append(nll)
    if packaged.spec.name != data.spec.name:
        evaluations.append(evaluate(rounded, packaged, metrics=PACKAGED_METRICS, limit=PACKAGED_EXAMPLES))
    card = {
        "schema": pretrained.SCHEMA,
        "model": run.model,
        "data": run.source.data,
        "recipe": recipe.name,
        "license": LICENSES[run.source.data],
        "sha256": rounded.checkpoint.model_sha256,
        "parameters": sum(p.numel() for p in run.vae.parameters()),
        "rounding": evaluations[0].metrics[0].value - original_loss,  # type: ignore[operator]  # -ELBO is one number
        "evaluations": [evaluation.as_dict() for evaluation in evaluations],
    }
    write_file(folder / pretrained.CARD, json_bytes(card))
    write_file(folder / "README.md", card_text(pretrained.read_card(folder)).encode())


def write_run(run: Run, work: Path) -> None:
    """Writes the files of a run that a pretrained model needs.

    The path of the data set is removed, and of the log only the validation metrics are kept.
    """
    assert run.source is not None
    record = read_json(run.path / "run.json")
    assert isinstance(record["source"], dict)
    record["source"]["data_dir"] = None
    record["weights_license"] = LICENSES[run.source.data]
    (work / "run.json").write_bytes(json_bytes(record))
    (work / RESULT).write_bytes(json_bytes(read_json(run.path / RESULT)))
    (work / EXAMPLES).write_bytes(read_file(run.path / EXAMPLES, MAX_EXAMPLES_BYTES))
    lines = [report for report in read_log(run.path) if report["split"] == "valid"]
    (work / LOG).write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
    weights = {"model": to_float16(run.vae), "objective": to_float16(run.objective)}
    save_checkpoint(work / CHECKPOINTS, weights, run.checkpoint.step, run.checkpoint.metrics, {})


def to_float16(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns a module's state, with float32 tensors rounded to float16."""
    return {name: t.half() if t.dtype == torch.float32 else t for name, t in module.state_dict().items()}


if __name__ == "__main__":
    main()
