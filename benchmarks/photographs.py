"""Train autoencoders on small photographs, evaluate them on held-out ones, and write the results into README.md.

    python benchmarks/photographs.py --data FOLDER                     the codes
    python benchmarks/photographs.py --data FOLDER --teacher RUN       also the tiny autoencoder
    python benchmarks/photographs.py --data FOLDER NAME ...            some of the rows
    python benchmarks/photographs.py --tables                          only the table, from existing results

FOLDER is an image folder with `train/` and `test/`, such as CIFAR-10 as JPEG files. RUN is an imported autoencoder; see
docs/import.md. Runs are kept in --runs. An unfinished run is resumed, and a finished one is only evaluated.

The settings of the codes are those of the VQ-VAE of DeepMind's Sonnet: 512 codes, batches of 32, 10,000 steps at
a learning rate of 3e-4. Its loss is the mean squared error divided by the variance of the data, with 0.25 of the
commitment. A Gaussian whose sigma is sqrt(variance / 2) has the same weights up to a common factor.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

import vaezoo
from tables import HERE, hardware, measure_rows, put_tables, table, versions
from vaezoo.core.environment import environment
from vaezoo.evaluation.image_metrics import iter_reconstructions

FILE = HERE / "results" / "photographs-cpu.json"
PACKAGES = ("vaezoo", "torch")
CODES = {"steps": 10_000, "batch_size": 32, "lr": 3e-4}
DISTILLED = {"steps": 8_000, "batch_size": 32, "lr": 1e-3, "schedule": "cosine", "eval_every": 1_000}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "VQ": ("vq-vae", {}, CODES),
    "FSQ": ("fsq-vae", {"quantizer.levels": (8, 8, 8)}, CODES),
    "distilled": ("tiny-autoencoder", {"channels": 32, "latent_channels": 32, "latent_norm": True}, DISTILLED),
}


def variance(data: vaezoo.Dataset) -> float:
    """Returns the variance of all values of the training examples."""
    x = data.train.batch(slice(None)).x.double()
    return float(x.var(correction=0))


def train(name: str, folder: Path, teacher: vaezoo.Run | None, path: Path) -> tuple[vaezoo.Run, vaezoo.Dataset]:
    """Trains a case, or resumes or loads its run. Returns the run and its data."""
    model, options, config = CASES[name]
    if name == "distilled":
        data = vaezoo.load_data(folder, likelihood="gaussian-identity")
    else:
        sigma = math.sqrt(variance(vaezoo.load_data(folder)) / 2)
        data = vaezoo.load_data(folder, likelihood=f"gaussian:{sigma:.4f}")
    if (path / "run.json").exists():
        return vaezoo.resume(path, data), data
    taught_by = teacher if name == "distilled" else None
    return vaezoo.train(model, data, options=options, config=config, out=path, teacher=taught_by), data


def measure(name: str, folder: Path, teacher: vaezoo.Run | None, runs: Path) -> dict[str, Any]:
    """Trains and evaluates a case and returns a row of results."""
    path = runs / name.lower()
    run, data = train(name, folder, teacher, path)
    metrics = ["reconstructions", *([] if name == "distilled" else ["codebook"])]
    row = {
        "name": name,
        "model": run.model,
        "training": CASES[name][2],
        "examples": {"train": len(data.train), "test": len(data.held_out[1])},
        "variance": variance(data),
        "environment": environment(PACKAGES),
        "threads": torch.get_num_threads(),
        "metrics": values(vaezoo.evaluate(run, data, metrics=metrics)),
        "mean_squared_error": mean_squared_error(run, data),
    }
    if name == "distilled" and teacher is not None:
        row["teacher"] = values(vaezoo.evaluate(teacher, data, metrics=metrics))
    return row


def mean_squared_error(run: vaezoo.Run, data: vaezoo.Dataset) -> float:
    """Returns the mean squared error of reconstructions of the held-out examples, over all of their values."""
    errors = [(again - x).double().square().mean() for x, again in iter_reconstructions(run.vae, data.held_out[1])]
    return float(torch.stack(errors).mean())


def values(evaluation: vaezoo.Evaluation) -> dict[str, float]:
    """Returns the metrics by name."""
    return {m.name: float(m.value) for m in evaluation.metrics if not isinstance(m.value, tuple)}


def tables(result: dict[str, Any]) -> list[str]:
    """Returns the lines for README.md."""
    rows = result["rows"]
    cells = [
        [
            f"`{row['model'].rpartition('/')[2]}`",
            row["name"],
            f"{row['metrics']['PSNR']:.2f}" + (f" (teacher {row['teacher']['PSNR']:.2f})" if "teacher" in row else ""),
            f"{row['mean_squared_error'] / row['variance']:.4f}",
            *(f"{row['metrics'][key]:{spec}}" if key in row["metrics"] else "-" for key, spec in USAGE.items()),
        ]
        for row in rows
    ]
    about, examples = rows[0]["environment"], rows[0]["examples"]
    threads = "1 thread" if rows[0]["threads"] == 1 else f"{rows[0]['threads']} threads"
    return [
        f"{hardware(about)}, {threads}; {versions(about)}. "
        f"{examples['train']:,} images to train, {examples['test']:,} held-out images.",
        "",
        *table(["model", "case", "PSNR, dB", "normalised error", "perplexity", "codes used"], cells),
    ]


USAGE = {"perplexity": ".0f", "codes_used": ".1%"}


def main() -> None:
    """Parses the arguments, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"rows: {', '.join(CASES)}")
    parser.add_argument("--data", type=Path, help="image folder")
    parser.add_argument("--teacher", type=Path, help="run of the teacher")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--tables", action="store_true", help="only write the table")
    args = parser.parse_args()
    if not args.tables:
        if args.data is None:
            parser.error("--data is missing")
        teacher = None if args.teacher is None else vaezoo.load(args.teacher)
        names = args.names or [name for name in CASES if teacher or name != "distilled"]
        measure_rows(FILE, CASES, names, lambda name: measure(name, args.data, teacher, args.runs))
    put_tables("photographs", "photographs.py", tables(json.loads(FILE.read_text("utf-8"))))


if __name__ == "__main__":
    main()
