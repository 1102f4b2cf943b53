"""Runs of the built-in models on packaged data, which gallery.py and explorers.py share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import vaezoo
from vaezoo.data.sound.sound_files import write_wav
from vaezoo.registry import list_models

DATA = {
    "ada-gvae": "shapes",
    "conv1d-vae": "sines",
    "scvi": "cells",
    "sentence-vae": "names",
    "spectrogram-vae": "tones",
    "time-vae": "sines",
    "tvae": "penguins",
    "waveform-vae": "waves",
}  # others: digits
SOUNDS: Mapping[str, Mapping[str, Any]] = {  # how generated sounds are read
    "tones": {"kind": "sound"},
    "waves": {"kind": "waveform", "window": 1_024},
}
# Nothing holds the codes of these models near a prior, so their samples come from one that is fitted.
CODES = ("vq-vae", "vq-vae-2", "fsq-vae", "lfq-vae", "residual-vq-vae", "vq-autoencoder")
FITTED = {"autoencoder": "gmm", "rae": "gmm", **dict.fromkeys(CODES, "autoregressive")}
TONES = 400
RATE = 8_000  # samples in a second


def data_name(name: str) -> str:
    """Returns the name of the data that a model is shown on."""
    return DATA.get(name, "digits")


def built_in() -> list[str]:
    """Returns the names of the built-in models."""
    return [registration.name for registration in list_models() if registration.built_in]


def find_or_train(name: str, folder: Path, config: vaezoo.TrainConfig | None = None) -> vaezoo.Run:
    """Trains a model in `folder/NAME`. A stopped run there is resumed, and a finished one is loaded."""
    path = folder / name
    if (path / "run.json").exists():
        return vaezoo.resume(path)
    data: vaezoo.Dataset | str = data_name(name)
    if data in SOUNDS:
        data = vaezoo.load_data(write_tones(folder / "tones"), **SOUNDS[data])
    return vaezoo.train(name, data, config=config, out=path)


def with_prior(name: str, run: vaezoo.Run, folder: Path) -> vaezoo.Run:
    """Returns the run whose prior gives the samples."""
    path = folder / f"{name}-prior"
    if name not in FITTED:
        return run
    return vaezoo.load(path) if (path / "result.json").exists() else vaezoo.fit_prior(run, FITTED[name], out=path)


def write_tones(folder: Path) -> Path:
    """Writes sounds of half a second to a folder: two partials that fade, at a pitch drawn for each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    time = np.arange(RATE // 2) / RATE
    for i in range(TONES):
        pitch, second, fading = 200 * 2 ** rng.uniform(0, 3), rng.random(), rng.uniform(0, 8)
        partials = np.sin(2 * np.pi * pitch * time) + second * np.sin(4 * np.pi * pitch * time)
        (folder / f"{i:03}.wav").write_bytes(write_wav(0.3 * np.exp(-fading * time) * partials, RATE))
    return folder
