"""Measures what checkpoints cost: the share of a training's time that goes into saving, at the default interval.

    python benchmarks/checkpoint_overhead.py --data-dir FOLDER    the packaged digits, and MNIST as torchvision keeps it in FOLDER
    python benchmarks/checkpoint_overhead.py --tables             only the table, from the results at hand

The share is taken within each training, from its first step to its last evaluation. It counts all that the trainer
waits for: copying, hashing, writing, syncing, removing old checkpoints. The disk is that of --out-dir.
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
from tables import HERE, hardware, put_tables, quartiles, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment
from vaezoo.core.json_io import json_bytes
from vaezoo.training.run_writer import RunWriter
from vaezoo.training.trainer import Trainer

FILE = HERE / "results" / "checkpoint-overhead-cpu.json"
PACKAGES = ("vaezoo", "torch", "safetensors")
CASES = (
    ("mlp-vae", "digits", 20),
    ("conv-vae", "digits", 5),
    ("vae-gan", "digits", 2),
    ("mlp-vae", "mnist", 3),
)  # epochs


class Timed:
    """Adds up the time that a method takes."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method, self.spent = method, [0.0]

    def of(self, instance: Any) -> Callable[..., Any]:
        """Returns the method of an instance, timed."""

        def call(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return self.method(instance, *args)
            finally:
                self.spent.append(time.perf_counter() - start)

        return call


def run(model: str, data: vaezoo.Dataset, epochs: int, folder: Path) -> dict[str, float]:
    """Trains once; returns the share of saving, the median seconds of a save and the seconds between two of them."""
    saving, fitting = Timed(RunWriter.checkpoint), Timed(Trainer.fit)

    def on_start(trainer: Trainer, _: Path) -> None:
        trainer.on_checkpoint = saving.of(trainer.on_checkpoint.__self__)  # type: ignore[attr-defined]
        trainer.fit = fitting.of(trainer)  # type: ignore[method-assign]

    vaezoo.train(model, data, config=vaezoo.TrainConfig(epochs=epochs, device="cpu"), out=folder, on_start=on_start)
    saves = sorted(saving.spent[1:])
    return {
        "share": sum(saves) / sum(fitting.spent),
        "save": saves[len(saves) // 2],
        "every": sum(fitting.spent) / epochs,
    }


def measure(data_dir: Path | None, runs: int, out: Path) -> list[dict[str, Any]]:
    """Returns a row for each case: quartiles over the runs, which take turns."""
    cases = [case for case in CASES if case[1] == "digits" or data_dir]
    sets = {name: vaezoo.load_data(name, data_dir=data_dir) for _, name, _ in cases}
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {case: [] for case in cases}
    for number in range(runs):
        for case in cases:
            model, data, epochs = case
            with tempfile.TemporaryDirectory(dir=out) as folder:
                found[case].append(run(model, sets[data], epochs, Path(folder) / "run"))
        print(f"round {number + 1} of {runs}", file=sys.stderr)
    return [
        {"model": model, "data": data, "epochs": epochs}
        | {name: quartiles([r[name] for r in found[model, data, epochs]]) for name in ("share", "save", "every")}
        for model, data, epochs in cases
    ]


def tables(result: dict[str, Any]) -> list[str]:
    """Returns the lines of README.md."""
    about = result["environment"]
    rows = [
        [
            f"{row['model']}, {row['data']}",
            f"{row['every']['p50']:.2f} s",
            f"{row['save']['p50'] * 1e3:.0f} ms",
            f"{row['share']['p50']:.1%} ({row['share']['p25']:.1%} to {row['share']['p75']:.1%})",
        ]
        for row in result["rows"]
    ]
    head = ["training", "an epoch takes", "a save takes", "share of the training"]
    told = f"{hardware(about)}, {result['setting']['threads']} threads; {versions(about)}."
    return [f"{told} {result['setting']['runs']} trainings each.", "", *table(head, rows)]


def main() -> None:
    """Reads the arguments, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out-dir", type=Path, help="where the runs go, and which disk is measured", default=Path("."))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tables", action="store_true")
    chosen = parser.parse_args()
    if not chosen.tables:
        setting = {"threads": torch.get_num_threads(), "runs": chosen.runs}
        rows = measure(chosen.data_dir, chosen.runs, chosen.out_dir)
        write_file(
            FILE, json_bytes({"schema": 1, "environment": environment(PACKAGES), "setting": setting, "rows": rows})
        )
    put_tables("checkpoint-overhead", "checkpoint_overhead.py", tables(json.loads(FILE.read_text())))


if __name__ == "__main__":
    main()
