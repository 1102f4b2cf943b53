"""Pretrained models: run folders in this package, each with a card.

conv-vae-mnist/           MODEL-DATA
    run.json ...            as in a run, with one checkpoint without the optimizer, its weights in float16
    card.json               recipe, metrics with their protocols, licence, SHA-256 of the weights
    README.md               the model card, made from card.json

`scripts/make_pretrained.py` makes them from runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vaezoo.core.json_io import check_schema, read_json
from vaezoo.errors import InputError, VaezooError, format_error, suggest, with_hint

if TYPE_CHECKING:
    from vaezoo.training.run import Run

FOLDER = Path(__file__).parent
CARD = "card.json"
SCHEMA = 2
REINSTALL = "reinstall vaezoo"  # hint for damaged files


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """The card of a pretrained model.

    Attributes:
        name: MODEL-DATA.
        model: Name of the model.
        data: Name of the data set that it was trained on.
        recipe: Name of the recipe that it was trained with.
        license: Licence of the weights, with the reason for it.
        sha256: SHA-256 of the file of weights.
        parameters: Number of parameters.
        rounding: Change of -ELBO by rounding to float16, in nats, in the first evaluation.
        evaluations: `Evaluation.as_dict` of each evaluation of these files.
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
    """Returns the cards of the pretrained models, sorted by name.

    Raises:
        InputError: If a card is damaged.
    """
    return [read_card(FOLDER / name) for name in names()]


def names() -> list[str]:
    """Returns the names of the pretrained models, sorted."""
    return sorted(card.parent.name for card in FOLDER.glob(f"*/{CARD}"))


def find_pretrained(name: str) -> Pretrained:
    """Returns the card of a pretrained model.

    Raises:
        VaezooError: If there is no pretrained model of this name.
        InputError: If its card is damaged.
    """
    if name not in names():
        raise VaezooError(f"no pretrained model named '{name}'", suggest(name, names(), "see 'vaezoo pretrained'"))
    return read_card(FOLDER / name)


def read_card(folder: Path) -> Pretrained:
    """Reads the card in a folder.

    Raises:
        InputError: If it is damaged.
    """
    with with_hint(REINSTALL):
        record = read_json(folder / CARD)
        check_schema(folder / CARD, record, SCHEMA)
    try:
        fields = {key: value for key, value in record.items() if key != "schema"}
        return Pretrained(name=folder.name, path=folder, **fields)  # type: ignore[arg-type]
    except TypeError as e:
        raise InputError(f"{folder / CARD} is damaged: {format_error(e)}", REINSTALL) from e


def load(
    source: str | os.PathLike[str] | None = None, checkpoint: str | int = "best", *, pretrained: str | None = None
) -> Run:
    """Loads a run, or a pretrained model as a run, by every name that the command line takes.

    Args:
        source: A run folder, a model's name for its newest run in `runs/`, the name of a pretrained model, or None for
            the newest run of all. With `pretrained`, the model's name.
        checkpoint: "best" on the validation split, "last", or a step.
        pretrained: Name of the data set that the pretrained model was trained on, as `vaezoo pretrained` lists it.

    Raises:
        InputError: If there is no such run, or it is damaged, or does not have the checkpoint.
        VaezooError: If the model is not installed, the pretrained model does not exist, or the source is an export, or
            neither a name nor a path.
    """
    from vaezoo.registry import list_models
    from vaezoo.runtime.export_files import is_export
    from vaezoo.training.run import load as load_run  # torch is not needed to list the models
    from vaezoo.training.run import newest_run

    if source is None:
        return load_run(newest_run(), checkpoint)
    if not isinstance(source, str | os.PathLike):
        what = f"load takes a run folder or a name, not an object of type {type(source).__name__}"
        raise VaezooError(what, "a run, an export or a module that is open needs no load: pass it on as it is")
    name = os.fspath(source)
    if pretrained is not None:
        model = name.rpartition("/")[2]  # without its distribution
        return load_pretrained(f"{model}-{pretrained}", checkpoint)
    models = [n for r in list_models() for n in (r.name, r.full_name)]
    if not (Path(name) / "run.json").exists():
        if name in models:
            return load_run(newest_run(name), checkpoint)
        if name in names():
            return load_pretrained(name, checkpoint)
    if is_export(name):
        raise VaezooError(f"{name} is an export, not a run", "open it with vaezoo.runtime.load")
    if Path(name).exists() or not isinstance(source, str):
        return load_run(source, checkpoint)
    hint = suggest(name, [*models, *names()], "give a run folder, or a name that 'vaezoo pretrained' shows")
    try:
        path = newest_run(name)  # of a model whose package is no longer installed
    except InputError:
        raise InputError(f"there is no run '{name}'", hint) from None
    return load_run(path, checkpoint)


def load_pretrained(name: str, checkpoint: str | int = "best") -> Run:
    """Loads a pretrained model by the name of its card.

    Raises:
        VaezooError: If there is no pretrained model of this name, or it does not have the checkpoint.
        InputError: If its files are damaged.
    """
    from vaezoo.training.run import load as load_run

    card = find_pretrained(name)
    if checkpoint not in ("best", "last"):
        raise VaezooError(f"'{name}' is pretrained and has one checkpoint", "leave out the checkpoint")
    with with_hint(REINSTALL):
        run = load_run(card.path, fp16=True)
    if run.checkpoint.model_sha256 != card.sha256:
        raise InputError(f"the weights in {card.path} differ from those of its card", REINSTALL)
    return run
