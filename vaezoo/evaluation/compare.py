"""`compare`: a table of runs, grouped by what differs, with mean and deviation over seeds."""

from __future__ import annotations

import os
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from vaezoo.core.json_io import read_json
from vaezoo.core.option_values import json_value, show_value
from vaezoo.errors import InputError, VaezooError, VaezooWarning, suggest
from vaezoo.training.run_files import RESULT, metrics_of, read_evaluations, read_result, read_run_record

REPLICATES = (
    "seed",
    "device",
    "workers",
    "samples_every",
    "log_csv",
)  # settings in which the runs of a group may differ
MAX_RUNS = 10_000
WEIGHTED = "weighted_elbo"  # a metric of objectives that weigh the KL


class Mean(NamedTuple):
    """A metric of a group of runs.

    Attributes:
        mean: Mean over the runs.
        deviation: Standard deviation over the runs, with n - 1. None for a single run.
        n: Number of runs with this metric.
    """

    mean: float
    deviation: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs that differ in nothing but their seed.

    Attributes:
        values: The values of what differs between groups.
        runs: Their folders.
        metrics: Metric -> mean and deviation over the finished runs.
    """

    values: Mapping[str, object]
    runs: Sequence[str]
    metrics: Mapping[str, Mean]

    @property
    def label(self) -> str:
        """The values on one line, such as `beta 4, lr 0.001`."""
        return ", ".join(f"{name} {show_value(json_value(value))}" for name, value in self.values.items()) or "all runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A table of runs.

    Attributes:
        columns: What differs between the groups.
        metrics: Names of the metrics: those of result.json, such as `elbo`, then those of evaluations,
            such as `eval -ELBO`.
        groups: The rows.
        failed: Cells of a sweep that failed -> message.
        unfinished: Folders of runs without a result, which no mean includes.
    """

    columns: Sequence[str]
    metrics: Sequence[str]
    groups: Sequence[Group]
    failed: Mapping[str, str]
    unfinished: Sequence[str]

    def as_dict(self) -> dict[str, object]:
        """Returns the table as JSON data."""
        fields = asdict(self)
        for row, group in zip(fields["groups"], self.groups, strict=True):
            row["metrics"] = {name: value._asdict() for name, value in group.metrics.items()}
        return fields

    def rows(self) -> list[list[object]]:
        """Returns the table as rows for a CSV file, the names of the columns first."""
        heads = [part for name in self.metrics for part in (name, f"{name} deviation", f"{name} runs")]
        rows: list[list[object]] = [[*self.columns, "runs", *heads]]
        for group in self.groups:
            values = [show_value(json_value(group.values[name])) for name in self.columns]
            means = [group.metrics.get(name) for name in self.metrics]
            numbers = [part for m in means for part in (m or (None, None, 0))]
            rows.append([*values, len(group.runs), *numbers])
        return rows


def compare(paths: Sequence[str | os.PathLike[str]], metrics: Sequence[str] = ()) -> Comparison:
    """Compares runs by the metrics in their folders. Nothing is computed anew.

    Args:
        paths: Run folders, and folders that hold run folders, such as that of a sweep.
        metrics: The metrics to show. The default is all that a run has.

    Raises:
        InputError: If there is no run in a folder, or a file is damaged.
        VaezooError: If no run has one of the metrics.
    """
    folders = [*{run.resolve(): run for path in paths for run in find_runs(Path(path))}.values()]
    if not folders:
        raise InputError("there is no run to compare", "give run folders, or the folder of a sweep")
    settings = {folder: run_settings(folder) for folder in folders}
    columns = differing(list(settings.values()))
    numbers = {folder: run_metrics(folder) for folder in folders}
    found = dict.fromkeys(name for values in numbers.values() for name in values)
    if WEIGHTED in found:
        for folder, values in numbers.items():
            if WEIGHTED not in values and "elbo" in values and is_unweighted(folder):
                values[WEIGHTED] = values["elbo"]
    results = {name for folder in folders for name in result_metrics(folder)}
    known = sorted(found, key=lambda name: name not in results)  # otherwise in the order in which they were found
    for name in metrics:
        if name not in known:
            have = f"the runs have {', '.join(known)}" if known else "the runs have no result yet"
            raise VaezooError(f"no run has the metric '{name}'", suggest(name, known, have))
    warn_of_different_data(folders)
    groups: dict[str, list[Path]] = {}
    for folder in folders:
        groups.setdefault(repr([settings[folder].get(name) for name in columns]), []).append(folder)
    return Comparison(
        columns=columns,
        metrics=list(metrics) or known,
        groups=[
            Group(
                values={name: settings[members[0]].get(name) for name in columns},
                runs=[str(folder) for folder in members],
                metrics=means([numbers[folder] for folder in members], list(metrics) or known),
            )
            for members in sorted(groups.values(), key=lambda m: [sort_key(settings[m[0]].get(c)) for c in columns])
        ],
        failed={
            file.name.removesuffix(".failed.json"): str(read_json(file).get("message"))
            for path in paths
            for file in sorted(Path(path).glob("*.failed.json"))
        },
        unfinished=[str(folder) for folder in folders if not has_ended(folder)],
    )


def has_ended(folder: Path) -> bool:
    """Tells whether a run has its result, or was imported and never gets one."""
    return (folder / RESULT).exists() or read_run_record(folder).imported is not None


def find_runs(path: Path) -> list[Path]:
    """Returns a run folder, or the run folders in a folder.

    Raises:
        InputError: If it is neither.
    """
    if (path / "run.json").exists():
        return [path]
    runs = sorted(file.parent for file in path.glob("*/run.json"))
    if not runs and not any(path.glob("*.failed.json")):
        raise InputError(f"{path} is not a run folder, and holds none", "give run folders, or the folder of a sweep")
    if len(runs) > MAX_RUNS:
        raise VaezooError(f"{path} holds {len(runs):,} runs", f"compare at most {MAX_RUNS:,}")
    return sorted(runs, key=lambda run: (read_run_record(run).training.seed, run.name))


def differing(settings: Sequence[Mapping[str, object]]) -> list[str]:
    """Returns the names of the settings in which runs differ, except for their seeds.

    A setting that some runs do not have is left out if model and part imply it, such as objective.k of objective=iwae.
    """
    columns = []
    for name in dict.fromkeys(name for values in settings for name in values):
        implied: dict[str, object] = {}
        part = name.partition(".")[0] if "." in name else "model"
        for values in settings:
            key = repr((values["model"], values.get(part)))
            if implied.setdefault(key, values.get(name)) != values.get(name):
                implied = {}
                break
        some_lack_it = not all(name in values for values in settings)
        differs = len({repr(values.get(name)) for values in settings}) > 1
        if name not in REPLICATES and differs and not (some_lack_it and implied):
            columns.append(name)
    return columns


def sort_key(value: object) -> tuple[int, float, str]:
    """Returns the key that sorts values: numbers by size, then texts."""
    return (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))


def run_settings(folder: Path) -> dict[str, object]:
    """Returns everything that may differ between runs: model, data, options and settings of the training."""
    record = read_run_record(folder)
    settings = {name: json_value(value) for name, value in asdict(record.training).items()}
    data = {"model": record.model, "data": record.data.name, "likelihood": record.data.likelihood}
    return {**data, **record.options, **({} if record.prior is None else record.prior.settings), **settings}


def run_metrics(folder: Path) -> dict[str, float]:
    """Returns the metrics of a run: those of its result, and those of evaluations of the same checkpoint.

    The names of the latter begin with `eval`, because other draws and settings give other values of the same terms.
    """
    values, result = result_metrics(folder), read_result(folder / RESULT)
    if not values:
        return {}
    own = read_run_record(folder).data.name, result["split"]
    for record in read_evaluations(folder):
        checkpoint = record["checkpoint"]
        if not isinstance(checkpoint, dict) or checkpoint.get("step") != result["step"]:
            continue  # of an earlier checkpoint
        other = "" if (record["data"], record["split"]) == own else f" on {record['data']} {record['split']}"
        part = "" if record["examples"] == record["total"] else f" of {record['examples']} examples"
        for metric in metrics_of(record, folder):
            if isinstance(metric.get("value"), int | float):
                values[f"eval {metric['name']}{other}{part}"] = float(str(metric["value"]))
    return values


def is_unweighted(folder: Path) -> bool:
    """Tells whether the objective of a run would weigh the KL, but does so with beta 1: then it is the ELBO itself."""
    betas = [value for name, value in read_run_record(folder).options.items() if name.rpartition(".")[2] == "beta"]
    return betas == [1] and read_json(folder / "run.json").get("monitor") == "elbo"


def result_metrics(folder: Path) -> dict[str, float]:
    """Returns the metrics at the end of a run's training; empty while it is unfinished."""
    metrics = read_result(folder / RESULT).get("metrics", {})
    assert isinstance(metrics, dict)
    return {name: float(value) for name, value in metrics.items()}


def means(runs: Sequence[Mapping[str, float]], metrics: Sequence[str]) -> dict[str, Mean]:
    """Returns mean and standard deviation of each metric over the runs that have it."""
    result = {}
    for name in metrics:
        values = [run[name] for run in runs if name in run]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            result[name] = Mean(statistics.fmean(values), deviation, len(values))
    return result


def warn_of_different_data(folders: Sequence[Path]) -> None:
    """Warns if runs of the same name of data were trained on different data."""
    prints: dict[str, set[str]] = {}
    for folder in folders:
        record = read_run_record(folder)
        prints.setdefault(record.data.name, set()).add(record.fingerprint)
    for name, found in prints.items():
        if len(found) > 1:
            what = f"the runs on '{name}' were trained on different data, so their metrics do not compare"
            warnings.warn(what, VaezooWarning, stacklevel=3)
