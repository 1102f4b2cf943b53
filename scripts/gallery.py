"""Trains the built-in models at their defaults and writes docs/gallery.md with images of each.

    python scripts/gallery.py --runs FOLDER              all models
    python scripts/gallery.py --runs FOLDER NAME ...     some of them
    python scripts/gallery.py --runs FOLDER --page       only the page, from finished runs

The page keeps the rows of models that have no run in FOLDER. Finished runs in FOLDER are not trained again, and
stopped ones are resumed. Look at each image before it is committed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import vaezoo
from vaezoo.core.atomic import write_file
from vaezoo.core.image_grids import as_bytes, image_grid, interleave_rows, png
from vaezoo.training.run_files import metrics_of, read_evaluations
from zoo_runs import DATA, FITTED, built_in, data_name, find_or_train, with_prior

DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = 8
SAMPLE_ROWS = 2
NO_SAMPLES = (
    "autoencoder-kl",
    "tiny-autoencoder",
    "autoencoder-dc",
)  # their prior is for a second model over the latents
FRECHET = "Frechet distance"  # that of samples comes before its floor
MARK = "<!-- gallery: written by gallery.py -->", "<!-- /gallery -->"


def sample_image(name: str, run: vaezoo.Run) -> bytes:
    """Returns a PNG: held-out examples above their reconstructions, and samples below."""
    examples = vaezoo.load_examples(run).limited(COLUMNS)
    x = examples.split.batch(slice(0, COLUMNS)).x.numpy()
    images = interleave_rows(as_bytes(x), as_bytes(vaezoo.reconstruct(run, examples)), COLUMNS)
    if name not in NO_SAMPLES:
        images = np.concatenate([images, as_bytes(run.sample(COLUMNS * SAMPLE_ROWS, seed=1))])
    return png(image_grid(images, COLUMNS).quantize(16))


def frechet(run: vaezoo.Run) -> float:
    """Returns the Frechet distance of samples from test examples. It is computed once and kept in the run's folder."""
    for record in read_evaluations(run.path):
        for metric in metrics_of(record, run.path):
            if str(metric["name"]).startswith(FRECHET) and isinstance(metric["value"], float):
                return metric["value"]
    evaluation = vaezoo.evaluate(run, metrics=["fid"])
    vaezoo.save_evaluation(run.path, evaluation)
    return next(m.value for m in evaluation.metrics if m.name.startswith(FRECHET) and isinstance(m.value, float))


def row(name: str, folder: Path) -> str:
    """Returns the row of the page for a finished run."""
    run = vaezoo.load(folder / name)
    metrics = run.result["metrics"]
    assert isinstance(metrics, dict)
    samples, distance = "none", ""
    if name not in NO_SAMPLES:
        samples = "from a fitted prior" if name in FITTED else "from the prior"
        distance = f"{frechet(with_prior(name, run, folder)):.0f}" if name not in DATA else ""
    loss = f"{metrics['reconstruction']:.1f} + {metrics['kl']:.1f}"
    return f"| `{name}` | ![{name}](gallery/{name}.png) | {samples} | {distance} | {loss} |"


def write_page(names: Sequence[str], folder: Path) -> None:
    """Writes the table of docs/gallery.md. Models without a run in `folder` keep their row."""
    page = DOCS / "gallery.md"
    before, _, rest = page.read_text("utf-8").partition(MARK[0])
    old, _, after = rest.partition(MARK[1])
    kept = {found[1]: found[0] for found in re.finditer(r"^\| `(.+?)` \|.*$", old, re.MULTILINE)}
    rows = [row(n, folder) if (folder / n / "result.json").exists() else kept.get(n) for n in names]
    head = "| model | images | samples | Fréchet distance | reconstruction + KL |"
    table = "\n".join([head, "|---|---|---|---|---|", *filter(None, rows)])
    write_file(page, f"{before}{MARK[0]}\n\n{table}\n\n{MARK[1]}{after}".encode())


def main() -> None:
    """Trains what is named and writes images and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models; default: all")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--page", action="store_true", help="only write the page")
    args = parser.parse_args()
    images = [name for name in built_in() if data_name(name) in ("digits", "shapes")]
    for name in [] if args.page else args.names or images:
        run = with_prior(name, find_or_train(name, args.runs), args.runs)
        write_file(DOCS / "gallery" / f"{name}.png", sample_image(name, run))
        print(name, run.result["metrics"], file=sys.stderr)
    write_page(images, args.runs)


if __name__ == "__main__":
    main()
