"""A training or an export that is killed, or whose disk fails, at any operation goes on as if nothing had been."""

import json
from collections.abc import Iterator

import pytest
from injector import ALL, ERRORS


@pytest.fixture(scope="module")
def operations(trials) -> list[list[str]]:
    """What a training does to its folder: kind, path and other path of each operation."""
    return trials.one({"trial": "operations"})["operations"]


@pytest.fixture(scope="module", params=[False, True], ids=["new", "replaced"])
def export(trials, request) -> dict[str, object]:
    """An export, over an older one or not, and how many operations it has."""
    wanted = {"replace": request.param}
    return wanted | {"count": trials.one({"trial": "export_operations", **wanted})["count"]}


def points(count: int, step: int) -> list[int]:
    """Which operations are tried: all, or one of `step` and the last; one more shows that there are no others."""
    return [*range(1, count + 2)] if ALL else [*range(1, count, step), count, count + 1]


def cases(count: int, step: int) -> Iterator[dict[str, object]]:
    """Yields the errors at the operations: all, or one of `step`."""
    every = [
        {"at": at, "how": how, "sticky": sticky}
        for sticky in (False, True)
        for how in ERRORS
        for at in range(1, count + 1)
    ]
    yield from every if ALL else every[::step]


def test_a_training_killed_at_any_operation_loses_nothing(operations, trials, tell):
    answers = trials.all([{"trial": "kill_at", "at": at} for at in points(len(operations), 11)])
    tell("K2", *counted(answers))
    assert [a["at"] for a in answers if a["finished"]] == [len(operations) + 1]


def test_an_export_killed_at_any_operation_is_the_old_or_the_new(export, trials, tell):
    wanted = {"trial": "kill_export", "replace": export["replace"]}
    answers = trials.all([{**wanted, "at": at} for at in points(export["count"], 7)])
    tell("K2", *counted(answers))
    assert [a["at"] for a in answers if a["finished"]] == [export["count"] + 1]


def test_an_error_at_any_operation_of_a_training_is_told_and_loses_nothing(operations, trials, tell):
    answers = trials.all([{"trial": "fail_at", **case} for case in cases(len(operations), 61)])
    tell("K3", *counted(answers))


def test_an_error_at_any_operation_of_an_export_is_told_and_loses_nothing(export, trials, tell):
    wanted = {"trial": "fail_export", "replace": export["replace"]}
    tell("K3", *counted(trials.all([{**wanted, **case} for case in cases(export["count"], 37)])))


def test_a_kill_at_any_time_loses_nothing(trials, tell):
    tell("K1", *counted(trials.all([{"trial": "kill_randomly", "seed": n} for n in range(200 if ALL else 20)])))


def test_ten_kills_in_a_row_lose_nothing(trials, tell):
    chains = [{"trial": "kill_randomly", "seed": 1000 + n, "kills": 10} for n in range(20 if ALL else 2)]
    tell("K5", *counted(trials.all(chains)))


def counted(answers) -> tuple[int, list[str]]:
    """Returns the number of answers, and the bad ones with the request that brings each again."""
    about = ("bad", "finished", "skipped")
    asked = [json.dumps({name: value for name, value in answer.items() if name not in about}) for answer in answers]
    return len(answers), [f"{what}\n{a['bad']}" for what, a in zip(asked, answers, strict=True) if a["bad"]]
