"""ModelSpec: the object that a model's entry point names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic

from vaezoo.core.options import ConfigT, config_json
from vaezoo.data.spec import DataSpec
from vaezoo.description import PARTS
from vaezoo.objectives.base import Objective
from vaezoo.objectives.elbo import ELBO
from vaezoo.vae import VAE


def default_objective(config: object, data: DataSpec) -> ELBO:
    """Returns the objective of a ModelSpec that gives none."""
    return ELBO()


def no_data_defaults(data: DataSpec) -> Mapping[str, object]:
    """Returns no options: those of a ModelSpec whose defaults suit all data."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(Generic[ConfigT]):
    """A model that vaezoo can list, train and export.

    Attributes:
        config: The options and their defaults, an instance of a frozen dataclass. Its fields are of type int, float,
            bool, str, Literal, `tuple[..., ...]` of these, or `... | None`.
        build: Builds the untrained model. Raises UnsupportedDataError for data that the model does not support.
        objective: Builds the objective that training minimises. The default is the ELBO.
        summary: One line for the list of models.
        reference: The paper.
        data_defaults: Returns the options whose defaults differ for such data. Those that a user gives come first.
        parts: `posterior`, `prior` and `objective` -> a word for the list of models. It is for those that are not
            options of the config.
        formulas: The same keys -> LaTeX, for the page of the model. It is for parts that are not registered.

    Raises:
        TypeError: If a field has another type, or `parts` or `formulas` another key. A package written for another API
            thus fails when it is imported.
    """

    config: ConfigT
    build: Callable[[ConfigT, DataSpec], VAE]
    objective: Callable[[ConfigT, DataSpec], Objective] = default_objective
    summary: str
    reference: str
    data_defaults: Callable[[DataSpec], Mapping[str, object]] = no_data_defaults
    parts: Mapping[str, str] = field(default_factory=dict)
    formulas: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (dataclasses.is_dataclass(self.config) and not isinstance(self.config, type)):
            raise TypeError(f"the config is not an instance of a dataclass: {self.config!r}")
        config_json(self.config)
        if not (callable(self.build) and callable(self.objective) and callable(self.data_defaults)):
            raise TypeError("build, objective and data_defaults must be callable")
        if not (isinstance(self.summary, str) and isinstance(self.reference, str)):
            raise TypeError("summary and reference must be strings")
        for name, words in (("parts", self.parts), ("formulas", self.formulas)):
            if not {*words} <= {*PARTS} or not all(isinstance(word, str) for word in words.values()):
                raise TypeError(f"{name} must have strings for some of {', '.join(PARTS)}: {words!r}")

    def part_names(self) -> dict[str, str]:
        """Returns what `vaezoo list` shows for posterior, prior and objective. Empty where nothing is known."""
        names = {option: getattr(getattr(self.config, option, None), "part", "") for option in PARTS}
        if self.objective is default_objective:
            names["objective"] = "elbo"
        return names | dict(self.parts)
