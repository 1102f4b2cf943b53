"""Recipes: complete training settings with a published and a measured value, as TOML files.

summary, model, data, likelihood, notes      the fields of RecipeHeader; `likelihood` and `notes` are optional
[options]                                    options of the model that differ from their defaults
[training]                                   settings that differ from the defaults of TrainConfig
[evaluation]                                 how the value is computed: the fields of RecipeEvaluation
[reference]                                  the published value: the fields of Reference
[measured]                                   the value measured by this project: the fields of Measured; optional
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from vaezoo.core.atomic import read_file
from vaezoo.core.options import config_json, configure, construct
from vaezoo.data.catalog import DATASETS
from vaezoo.errors import InputError, VaezooError, format_error, safe_repr, suggest
from vaezoo.evaluation.metrics import Binarize
from vaezoo.likelihoods.make import make_likelihood
from vaezoo.registry import find_model
from vaezoo.training.config import TrainConfig

FOLDER = Path(__file__).parent
MAX_BYTES = 1 << 20  # of a recipe file

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeEvaluation:
    """How a recipe's value is computed on the test split; see `vaezoo.evaluation`.

    Attributes:
        metric: "elbo" for the negative ELBO, or "nll" for -log p(x) by importance sampling.
        binarize: As in `vaezoo.evaluate`.
        samples: Samples of z per example.
        limit: Number of evenly spaced test examples, or None for all.
    """

    metric: Literal["elbo", "nll"] = "elbo"
    binarize: Binarize = "none"
    samples: int = 10
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The published value.

    Attributes:
        source: Where it was published, or why there is none.
        value: Nats per example, or None if this value was not published for this network.
        protocol: How it was computed, above all where this differs from the recipe.
    """

    source: str
    value: float | None = None
    protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The value that this project measured.

    Attributes:
        value: Nats per example.
        protocol: How it was computed.
        minutes: Duration of the training.
        machine: The machine that trained and evaluated.
    """

    value: float
    protocol: str
    minutes: float
    machine: str


@dataclass(frozen=True, kw_only=True)
class RecipeHeader:
    """The keys of a recipe outside its tables.

    Attributes:
        summary: One line for the list of recipes.
        model: A registered model.
        data: A name known to `load_data`.
        likelihood: As in `load_data`, or None for the data set's default.
        notes: Further remarks.
    """

    summary: str
    model: str
    data: str
    likelihood: str | None = None
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class Recipe(RecipeHeader):
    """Complete training settings with a published and a measured value.

    `train(recipe.model, load_data(recipe.data, likelihood=recipe.likelihood), options=recipe.options,
    config=recipe.training)` trains it.

    Attributes:
        name: The file name without `.toml`.
        options: Options of the model that differ from their defaults.
        training: All training settings.
        evaluation: How the value is computed.
        reference: The published value.
        measured: The value that this project measured, or None.
    """

    name: str
    options: Mapping[str, object]
    training: TrainConfig
    evaluation: RecipeEvaluation
    reference: Reference
    measured: Measured | None


TABLES = ("options", "training", "evaluation", "reference", "measured")


def list_recipes() -> list[Recipe]:
    """Returns the packaged recipes, sorted by name."""
    return [read_recipe(file) for file in sorted(FOLDER.glob("*.toml"), key=lambda f: f.stem)]


def find_recipe(name: str) -> Recipe:
    """Returns a packaged recipe by name, or reads a file if the name ends in `.toml`.

    Raises:
        VaezooError: If the recipe does not exist.
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
        InputError: If the file cannot be read or is not valid TOML. Also if it names an unknown model, option, setting
            or key, or gives one a value of another type or out of range.
    """
    data = read_file(file, MAX_BYTES)
    try:
        return parse_recipe(file.stem, tomllib.loads(data.decode()))
    except (ValueError, RecursionError) as e:
        raise InputError(f"{file} is not valid TOML: {format_error(e)}", "fix the file") from e
    except VaezooError as e:
        raise InputError(f"{file}: {e.message}", e.hint) from e


def parse_recipe(name: str, record: Mapping[str, object]) -> Recipe:
    """Builds a recipe from the content of its file.

    Raises:
        VaezooError: See `read_recipe`.
    """
    header_values = {key: value for key, value in record.items() if key not in TABLES}
    header = parse_table("", header_values, partial(construct, RecipeHeader))
    if header.data not in DATASETS:
        raise VaezooError(
            f"no data set named '{safe_repr(header.data)}'", suggest(header.data, DATASETS, "see 'vaezoo list'")
        )
    make_likelihood(header.likelihood or "bernoulli")
    tables = {key: record.get(key, {}) for key in TABLES}
    parse_table("options", tables["options"], partial(configure, find_model(header.model).load().config))
    training = parse_table("training", tables["training"], partial(configure, TrainConfig()))
    if {"steps", "epochs"} <= tables["training"].keys():  # type: ignore[attr-defined]  # parse_table checks the type
        raise VaezooError("[training] 'steps' and 'epochs' both set the length of the training", "give one of them")
    return Recipe(
        name=name,
        **vars(header),
        options=dict(tables["options"]),  # type: ignore[call-overload]  # parse_table checks the type
        training=training,
        evaluation=parse_table("evaluation", tables["evaluation"], partial(construct, RecipeEvaluation)),
        reference=parse_table("reference", tables["reference"], partial(construct, Reference)),
        measured=parse_table("measured", tables["measured"], partial(construct, Measured))
        if "measured" in record
        else None,
    )


def parse_table(table: str, values: object, build: Callable[[Mapping[str, object]], T]) -> T:
    """Returns `build(values)`. The values must already have the types of the result, so "3" is not accepted for 3.

    Raises:
        VaezooError: If a key is unknown or missing, or a value does not fit. The message names the table.
    """
    try:
        if not isinstance(values, dict):
            raise VaezooError(f"{safe_repr(values)} is not a table", f"write [{table}] and one line per value")
        result = build(values)
        typed = config_json(result)
        for name, value in values.items():
            if typed[name] != value:
                raise VaezooError(
                    f"'{name}' is {safe_repr(repr(value))}, of another type", f"give '{name}' without quotes"
                )
        return result
    except VaezooError as e:
        raise VaezooError(f"[{table}] {e.message}" if table else e.message, e.hint) from e
