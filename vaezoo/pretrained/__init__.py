"""Pretrained models: run folders in this package, without what only training needs, each with a card.

conv-vae-mnist/           MODEL-DATA
    run.json ...            as a training leaves them, with one checkpoint, its weights in float16
    card.json               recipe, figures with their protocols, license, SHA-256 of the weights
    README.md               the same for people

`python -m scripts.make_pretrained` makes them of runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaezoo.core.json_io import read_json
from vaezoo.errors import InputError, VaezooError, format_error, suggest, with_hint
from vaezoo.training.checkpoint import check_schema
from vaezoo.training.run import Run
from vaezoo.training.run import load as load_run

FOLDER = Path(__file__).parent
CARD = "card.json"
SCHEMA = 2
REPAIR = "install vaezoo again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """What a card says.

    Attributes:
        name: MODEL-DATA.
        model: Name of the model.
        data: Name of the data set that it was trained on.
        recipe: Name of the recipe that trained it.
        license: Of the weights, with the reason for it.
        sha256: Of the weights' file.
        parameters: How many numbers the model has.
        rounding: Nats that float16 changes -ELBO by, on the first of the evaluations.
        evaluations: What was measured with these very files: `Evaluation.as_dict` of each.
        path: The folder.
    """

    name: str
    model: str
    data: str
    recipe: str
    license: str
    sha256: str
    parameters: int
    rounding: float
    evaluations: Sequence[Mapping[str, object]]
    path: Path


def list_pretrained() -> list[Pretrained]:
    """Returns the pretrained models, sorted by name.

    Raises:
        InputError: If a card is damaged.
    """
    return [read_card(FOLDER / name) for name in names()]


def names() -> list[str]:
    """Returns the names of the pretrained models, sorted."""
    return sorted(card.parent.name for card in FOLDER.glob(f"*/{CARD}"))


def find_pretrained(name: str) -> Pretrained:
    """Returns the pretrained model of a name.

    Raises:
        VaezooError: If there is none.
        InputError: If its card is damaged.
    """
    if name not in names():
        raise VaezooError(f"no pretrained model named '{name}'", suggest(name, names(), "see 'vaezoo pretrained'"))
    return read_card(FOLDER / name)


def read_card(folder: Path) -> Pretrained:
    """Reads a card.

    Raises:
        InputError: If it is damaged.
    """
    with with_hint(REPAIR):
        told = read_json(folder / CARD)
        check_schema(folder / CARD, told, SCHEMA)
    try:
        return Pretrained(name=folder.name, path=folder, **{k: v for k, v in told.items() if k != "schema"})  # type: ignore[arg-type]
    except TypeError as e:
        raise InputError(f"{folder / CARD} is damaged: {format_error(e)}", REPAIR) from e


def load(source: str | os.PathLike[str], checkpoint: str = "best", *, pretrained: str | None = None) -> Run:
    """Loads a run, or a pretrained model as one.

    Args:
        source: The run folder; with `pretrained` the model's name.
        checkpoint: "best" on the validation part, "last", or a step.
        pretrained: The data that the model was trained on, as `vaezoo pretrained` lists it.

    Raises:
        InputError: If the folder is no run, or is damaged, or has no such checkpoint.
        VaezooError: If its model is not installed, or there is no such pretrained model.
    """
    name = os.fspath(source)
    if pretrained is None:
        if name in names() and not Path(name).exists():
            card = find_pretrained(name)
            raise VaezooError(
                f"'{name}' is a pretrained model, no run folder", f'give "{card.model}", pretrained="{card.data}"'
            )
        return load_run(source, checkpoint)
    model = name.rpartition("/")[2]  # without its distribution
    return load_pretrained(f"{model}-{pretrained}", checkpoint)


def load_pretrained(name: str, checkpoint: str = "best") -> Run:
    """Loads the pretrained model of a name.

    Raises:
        VaezooError: If there is none of this name, or it has no such checkpoint.
        InputError: If its files are damaged.
    """
    card = find_pretrained(name)
    if checkpoint not in ("best", "last"):
        raise VaezooError(f"'{name}' is pretrained and has one checkpoint", "leave out the checkpoint")
    with with_hint(REPAIR):
        run = load_run(card.path, halved=True)
    if run.checkpoint.model_sha256 != card.sha256:
        raise InputError(f"{card.path} holds other weights than its card says", REPAIR)
    return run
