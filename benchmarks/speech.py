"""Train spectrogram-vae on spoken digits, with one speaker held out, and write the figures into README.md.

    python benchmarks/speech.py --data FOLDER            all rows
    python benchmarks/speech.py --data FOLDER NAME ...   some of the rows
    python benchmarks/speech.py --tables                 only the table, from existing results

FOLDER holds the recordings of the Free Spoken Digit Dataset, such as `7_jackson_12.wav`. Runs are kept in --runs. An
unfinished run is resumed, and a finished one is only evaluated.

A recording is a window of 48 frames, 0.77 seconds. Longer ones are measured by their first window. No training has
recordings of the held-out speaker, or those of the other speakers with an index below 5, the data set's own test part.
The baseline is a PCA of the same training windows with as many components as the model has latents.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

import vaezoo
from tables import HERE, hardware, measure_rows, put_tables, table, versions
from vaezoo.core.environment import environment
from vaezoo.data.sound.sound_files import read_sound, write_wav
from vaezoo.data.sound.spectrogram import log_mel, to_sound

Values = NDArray[Any]
FILE = HERE / "results" / "speech-cpu.json"
PACKAGES = ("vaezoo", "torch", "scikit-learn")
SPEAKER = "theo"  # was chosen before the first training
WINDOW = 48  # frames
TEST_BELOW = 5  # indices of the recordings of other speakers that are held out
PATTERN = r"(\d)_([a-z]+)_\d+"
NEIGHBOURS = 5
HEARD = 200  # reconstructions of each group that become sound
SMALL = {"channels": (16, 32, 64)}
PLAIN = {"steps": 1_500, "batch_size": 64, "lr": 2e-3, "schedule": "cosine", "eval_every": 500}
MOVED = PLAIN | {"augment": ("shift=3",)}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "32 latents": (SMALL, PLAIN),
    "32 latents, moved": (SMALL, MOVED),
    "16 latents, moved": (SMALL | {"latent_dim": 16}, MOVED),
}


class Group(NamedTuple):
    """Recordings that figures are about.

    Attributes:
        x: Their spectrograms as the model takes them, `(N, 1, frequencies, frames)`.
        digit: `(N,)`.
    """

    x: torch.Tensor
    digit: Values


def load(folder: Path, parts: Path) -> vaezoo.Dataset:
    """Loads the recordings by links to them in folders of a training part and a test part.

    Args:
        folder: The folder of the recordings.
        parts: The folder of these two folders.
    """
    for path in sorted(folder.glob("*.wav")):
        _, speaker, index = path.stem.split("_")
        part = "test" if speaker == SPEAKER or int(index) < TEST_BELOW else "train"
        link = parts / part / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    return vaezoo.load_data(parts, kind="sound", window=WINDOW, label_pattern=PATTERN)


def groups(data: vaezoo.Dataset) -> dict[str, Group]:
    """Returns the first windows of the recordings by group: train, speaker and others."""
    held_out = data.spec.label_names[1].index(SPEAKER)
    found = {}
    for name, split in (("train", data.train), ("speaker", data.test), ("others", data.test)):
        assert split is not None and split.names is not None
        x, y = split.batch(slice(None))
        assert y is not None
        keep = torch.tensor(["@" not in name for name in split.names])
        if name != "train":
            keep &= (y[:, 1] == held_out) == (name == "speaker")
        found[name] = Group(x[keep], y[keep, 0].numpy())
    return found


def apply(vae: vaezoo.VAE, x: torch.Tensor) -> tuple[Values, Values]:
    """Returns the codes and the reconstructions of examples."""
    vae.eval()
    with torch.no_grad():
        z = torch.cat([vae.encode(part).mode() for part in x.split(256)])
        again = torch.cat([vae.likelihood.mean(vae.decode(part)) for part in z.split(256)])
    return z.numpy(), again.numpy()


def heard(run: vaezoo.Run, again: Values) -> Values:
    """Returns the codes of reconstructions after the way to a .wav file and back."""
    scaling, rate = run.data.scaling, run.data.sample_rate
    x = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "x.wav")
        for spectrogram in scaling.invert(again):
            path.write_bytes(write_wav(to_sound(spectrogram[0], rate), rate))
            x.append(log_mel(read_sound(path)[0][:, 0], rate)[None, :, :WINDOW])
    return apply(run.vae, torch.from_numpy(scaling.apply(np.stack(x))))[0]


def figures(run: vaezoo.Run, data: vaezoo.Dataset) -> dict[str, Any]:
    """Returns errors and accuracies of a run by group."""
    found = groups(data)
    z, _ = apply(run.vae, found["train"].x)
    neighbours = KNeighborsClassifier(NEIGHBOURS).fit(z, found["train"].digit)
    flat = data.train.batch(slice(None)).x.flatten(1).numpy()
    pca = PCA(z.shape[1], svd_solver="full").fit(flat)
    by_pca = KNeighborsClassifier(NEIGHBOURS).fit(pca.transform(found["train"].x.flatten(1)), found["train"].digit)
    rows = {}
    for name in ("speaker", "others"):
        x, digit = found[name]
        codes, again = apply(run.vae, x)
        components = pca.transform(x.flatten(1))
        count = min(HEARD, len(x))
        some = np.arange(count) * len(x) // count
        rows[name] = {
            "recordings": len(x),
            "error": float(np.square(again - x.numpy()).mean()),
            "pca_error": float(np.square(pca.inverse_transform(components) - x.flatten(1).numpy()).mean()),
            "knn": float((neighbours.predict(codes) == digit).mean()),
            "pca_knn": float((by_pca.predict(components) == digit).mean()),
            "heard": float((neighbours.predict(heard(run, again[some])) == digit[some]).mean()),
        }
    return rows


def measure(name: str, data: vaezoo.Dataset, runs: Path) -> dict[str, Any]:
    """Trains and evaluates a case and returns a row of results."""
    options, settings = CASES[name]
    path = runs / name.replace(", ", "-").replace(" ", "-")
    if (path / "run.json").exists():
        run = vaezoo.resume(path, data)
    else:
        config = vaezoo.TrainConfig(**settings)
        run = vaezoo.train("spectrogram-vae", data, options=options, config=config, out=path)
    return {
        "name": name,
        "latents": run.options["latent_dim"],
        "options": options,
        "training": settings,
        "examples": len(data.train),
        "environment": environment(PACKAGES),
        "threads": torch.get_num_threads(),
        "groups": figures(run, data),
    }


def tables(result: dict[str, Any]) -> list[str]:
    """Returns the lines for README.md."""
    cells = []
    for row in result["rows"]:
        for group, label in (("speaker", f"{SPEAKER}, held out"), ("others", "the other five")):
            found = row["groups"][group]
            ratio = found["error"] / found["pca_error"]
            errors = [f"{found['error']:.4f}", f"{found['pca_error']:.4f}", f"{ratio:.2f}"]
            shares = [f"{found[key]:.1%}" for key in ("knn", "pca_knn", "heard")]
            cells.append([row["name"], label, *errors, *shares])
    first = result["rows"][0]
    head = ["case", "speaker", "error", "of PCA", "ratio", "k-NN", "k-NN of PCA", "k-NN of the sound"]
    return [
        f"{hardware(first['environment'])}, {first['threads']} thread; {versions(first['environment'])}. "
        f"{first['examples']:,} windows to train.",
        "",
        *table(head, cells),
    ]


def main() -> None:
    """Parses the arguments, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"rows: {'; '.join(CASES)}")
    parser.add_argument("--data", type=Path, help="folder of recordings")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--tables", action="store_true", help="only write the table")
    args = parser.parse_args()
    if not args.tables:
        if args.data is None:
            parser.error("--data is missing")
        data = load(args.data, args.runs / "recordings")
        measure_rows(FILE, CASES, args.names or CASES, lambda name: measure(name, data, args.runs))
    put_tables("speech", "speech.py", tables(json.loads(FILE.read_text("utf-8"))))


if __name__ == "__main__":
    main()
