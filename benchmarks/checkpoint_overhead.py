"""Measure the cost of checkpoints: the share of a training's time spent on saving, at the default interval.

    python benchmarks/checkpoint_overhead.py --data-dir FOLDER    the packaged digits and MNIST
    python benchmarks/checkpoint_overhead.py                      only the packaged digits
    python benchmarks/checkpoint_overhead.py --tables             only the table, from existing results

FOLDER is a folder of torchvision's data sets. The share is taken within each training, from its first step to its last
evaluation. It counts everything that the trainer waits for: copying, hashing, writing, syncing, and removing old
checkpoints. The disk is that of --out-dir.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import vaezoo
from tables import HERE, format_quartiles, hardware, put_tables, quartiles, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment
from vaezoo.core.json_io import json_bytes
from vaezoo.training.run_writer import RunWriter
from vaezoo.training.trainer import Trainer

FILE = HERE / "results" / "checkpoint-overhead-cpu.json"
PACKAGES = ("vaezoo", "torch", "safetensors")
CASES = (  # model, data set, epochs
    ("mlp-vae", "digits", 20),
    ("conv-vae", "digits", 5),
    ("vae-gan", "digits", 2),
    ("mlp-vae", "mnist", 3),
)
KEYS = ("share", "save_seconds", "epoch_seconds")


class TimedMethod:
    """Times every call of a method.

    Attributes:
        seconds: The time of each call.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.seconds: list[float] = []

    def bind(self, instance: Any) -> Callable[..., Any]:
        """Returns the timed method of an instance."""

        def call(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return self.method(instance, *args)
            finally:
                self.seconds.append(time.perf_counter() - start)

        return call


def train(model: str, data: vaezoo.Dataset, epochs: int, path: Path) -> dict[str, float]:
    """Trains once. Returns the share of saving, the median seconds of a save, and the seconds between two saves."""
    saving, fitting = TimedMethod(RunWriter.checkpoint), TimedMethod(Trainer.fit)

    def on_start(trainer: Trainer, _: Path) -> None:
        trainer.on_checkpoint = saving.bind(trainer.on_checkpoint.__self__)  # type: ignore[attr-defined]
        trainer.fit = fitting.bind(trainer)  # type: ignore[method-assign]

    vaezoo.train(model, data, config=vaezoo.TrainConfig(epochs=epochs, device="cpu"), out=path, on_start=on_start)
    saves = sorted(saving.seconds)
    return {
        "share": sum(saves) / sum(fitting.seconds),
        "save_seconds": saves[len(saves) // 2],
        "epoch_seconds": sum(fitting.seconds) / epochs,
    }


def measure(data_dir: Path | None, runs: int, out: Path) -> list[dict[str, Any]]:
    """Returns a row for each case with quartiles over the runs, which are interleaved."""
    cases = [case for case in CASES if case[1] == "digits" or data_dir]
    datasets = {name: vaezoo.load_data(name, data_dir=data_dir) for _, name, _ in cases}
    results: dict[tuple[str, str, int], list[dict[str, float]]] = {case: [] for case in cases}
    for number in range(runs):
        for case in cases:
            model, data, epochs = case
            with tempfile.TemporaryDirectory(dir=out) as folder:
                results[case].append(train(model, datasets[data], epochs, Path(folder) / "run"))
        print(f"round {number + 1} of {runs}", file=sys.stderr)
    return [
        {"model": model, "data": data, "epochs": epochs}
        | {key: quartiles([r[key] for r in results[model, data, epochs]]) for key in KEYS}
        for model, data, epochs in cases
    ]


def tables(result: dict[str, Any]) -> list[str]:
    """Returns the lines for README.md."""
    about, setting = result["environment"], result["setting"]
    rows = [
        [
            f"{row['model']}, {row['data']}",
            f"{row['epoch_seconds']['p50']:.2f} s",
            f"{row['save_seconds']['p50'] * 1e3:.0f} ms",
            format_quartiles(row["share"], ".1%"),
        ]
        for row in result["rows"]
    ]
    head = ["training", "time per epoch", "time per save", "share of the training time"]
    return [
        f"{hardware(about)}, {setting['threads']} threads; {versions(about)}. {setting['runs']} trainings each.",
        "",
        *table(head, rows),
    ]


def main() -> None:
    """Parses the arguments, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of torchvision's data sets")
    parser.add_argument("--out-dir", type=Path, default=Path("."), help="folder of the runs; its disk is measured")
    parser.add_argument("--runs", type=int, default=5, help="trainings of each case")
    parser.add_argument("--tables", action="store_true", help="only write the table")
    args = parser.parse_args()
    if not args.tables:
        setting = {"threads": torch.get_num_threads(), "runs": args.runs}
        rows = measure(args.data_dir, args.runs, args.out_dir)
        result = {"schema": 1, "environment": environment(PACKAGES), "setting": setting, "rows": rows}
        write_file(FILE, json_bytes(result))
    put_tables("checkpoint-overhead", "checkpoint_overhead.py", tables(json.loads(FILE.read_text("utf-8"))))


if __name__ == "__main__":
    main()
