"""Recipes: trainings with all that a figure depends on, one TOML file each, those of this package and anybody's.

summary, model, data, likelihood, notes      what is trained on what; `likelihood` and `notes` may be left out
[options]                                    the model's options that differ from their defaults
[training]                                   the settings that differ from TrainConfig's
[evaluation]                                 how the figure is found: the fields of Evaluation
[reference]                                  what others report: the fields of Reference
[measured]                                   what this project measured: the fields of Measured; none until somebody did
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from vaezoo.core.atomic import read_file
from vaezoo.data.catalog import DATASETS
from vaezoo.errors import InputError, VaezooError, format_error, safe_repr, suggest
from vaezoo.evaluation.metrics import Binarize
from vaezoo.likelihoods.make import make_likelihood
from vaezoo.registry import find_model
from vaezoo.spec import configure, construct, json_value
from vaezoo.training.config import TrainConfig

FOLDER = Path(__file__).parent
MOST = 1 << 20  # bytes of a recipe

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeEvaluation:
    """How a recipe's figure is found on the test part; see `vaezoo.evaluation`.

    Attributes:
        metric: "elbo" for the negative ELBO, or "nll" for -log p(x) by importance sampling.
        binarize: As the evaluation takes it.
        samples: Samples of z for each example.
        limit: Number of evenly spaced test examples; None for all.
    """

    metric: Literal["elbo", "nll"] = "elbo"
    binarize: Binarize = "none"
    samples: int = 10
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What others report.

    Attributes:
        source: Where it was read; where there is nothing to read, that.
        value: Nats an example; None where nobody reports this figure of this network.
        protocol: How they found it, where it differs from ours above all.
    """

    source: str
    value: float | None = None
    protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What this project measured with the recipe.

    Attributes:
        value: Nats an example.
        protocol: How it was found.
        minutes: That the training took.
        machine: Where.
    """

    value: float
    protocol: str
    minutes: float
    machine: str


@dataclass(frozen=True, kw_only=True)
class RecipeHeader:
    """What a recipe says outside of its tables.

    Attributes:
        summary: One line for the list.
        model: A registered model.
        data: A name that `load_data` takes.
        likelihood: As `load_data` takes it; None for the data set's own.
        notes: What is to be known besides.
    """

    summary: str
    model: str
    data: str
    likelihood: str | None = None
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class Recipe(RecipeHeader):
    """A training with all that its figure depends on.

    `train(recipe.model, load_data(recipe.data, likelihood=recipe.likelihood), options=recipe.options,
    config=recipe.training)` does it.

    Attributes:
        name: The file's name without `.toml`.
        options: The model's options that differ from their defaults.
        training: All settings.
        evaluation: How the figure is found.
        reference: What others report.
        measured: What this project measured; None until somebody did.
    """

    name: str
    options: Mapping[str, object]
    training: TrainConfig
    evaluation: RecipeEvaluation
    reference: Reference
    measured: Measured | None


TABLES = ("options", "training", "evaluation", "reference", "measured")


def list_recipes() -> list[Recipe]:
    """Returns the recipes of this package, sorted by name."""
    return [read_recipe(file) for file in sorted(FOLDER.glob("*.toml"), key=lambda f: f.stem)]


def find_recipe(name: str) -> Recipe:
    """Returns a recipe of this package, or that of a file whose path ends in `.toml`.

    Raises:
        VaezooError: If there is no such recipe.
        InputError: As `read_recipe`.
    """
    if name.endswith(".toml"):
        return read_recipe(Path(name))
    names = [file.stem for file in FOLDER.glob("*.toml")]
    if name not in names:
        raise VaezooError(f"no recipe named '{name}'", suggest(name, names, "see 'vaezoo recipes'"))
    return read_recipe(FOLDER / f"{name}.toml")


def read_recipe(file: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        InputError: If it cannot be read, is no TOML, names a model, an option, a config or a key that is not there, or
            gives one a value of another type or out of its range.
    """
    data = read_file(file, MOST)
    try:
        return parse(file.stem, tomllib.loads(data.decode()))
    except (ValueError, RecursionError) as e:
        raise InputError(f"{file} is no TOML: {format_error(e)}", "mend it there") from e
    except VaezooError as e:
        raise InputError(f"{file}: {e.message}", e.hint) from e


def parse(name: str, told: Mapping[str, object]) -> Recipe:
    """Makes a recipe of what its file holds; raises VaezooError, see `read_recipe`."""
    words = made("", {key: value for key, value in told.items() if key not in TABLES}, partial(construct, RecipeHeader))
    if words.data not in DATASETS:
        raise VaezooError(
            f"no data set named '{safe_repr(words.data)}'", suggest(words.data, DATASETS, "see 'vaezoo list'")
        )
    make_likelihood(words.likelihood or "bernoulli")
    tables = {key: told.get(key, {}) for key in TABLES}
    made("options", tables["options"], partial(configure, find_model(words.model).load().config))
    training = made("training", tables["training"], partial(configure, TrainConfig()))
    if {"steps", "epochs"} <= tables["training"].keys():  # type: ignore[attr-defined]  # made() has looked
        raise VaezooError("[training] 'steps' and 'epochs' both say how long to train", "give one of them")
    return Recipe(
        name=name,
        **vars(words),
        options=dict(tables["options"]),  # type: ignore[call-overload]  # made() has looked
        training=training,
        evaluation=made("evaluation", tables["evaluation"], partial(construct, RecipeEvaluation)),
        reference=made("reference", tables["reference"], partial(construct, Reference)),
        measured=made("measured", tables["measured"], partial(construct, Measured)) if "measured" in told else None,
    )


def made(table: str, values: object, make: Callable[[Mapping[str, object]], T]) -> T:
    """Returns what `make` makes of a table's values, which must be of the types they are brought to: no "3" for 3.

    Raises:
        VaezooError: If a key is unknown or missing or a value does not fit; it names the table.
    """
    try:
        if not isinstance(values, dict):
            raise VaezooError(f"{safe_repr(values)} is no table", f"write [{table}] and a line for each value")
        result = make(values)
        for name, value in values.items():
            if json_value(getattr(result, name)) != value:
                raise VaezooError(
                    f"'{name}' is {safe_repr(repr(value))}, of another type", f"give '{name}' without quotes"
                )
        return result
    except VaezooError as e:
        raise VaezooError(f"[{table}] {e.message}" if table else e.message, e.hint) from e
