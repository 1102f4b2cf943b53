"""Kills at the moments that matter: the first and the last save, pruning, resuming, and when all is over."""

import pytest
from injector import ALL
from test_kills import counted


@pytest.fixture(scope="module")
def operations(trials) -> list[list[str]]:
    """What a training does to its folder: kind, path and other path of each operation."""
    return trials.one({"trial": "operations"})["operations"]


def named(operations, kind: str, name: str, which: int = 0) -> int:
    """The number of the operation of a kind whose path or other path ends in a name, counted from 1."""
    return [n for n, op in enumerate(operations, 1) if op[0] == kind and any(p.endswith(name) for p in op[1:])][which]


def saving(operations, step: str) -> list[int]:
    """The operations that save a step: from its temporary folder to the sync behind the rename."""
    end = named(operations, "rename", f"/step-{step}") + 1
    begin = max(n for n, op in enumerate(operations[:end], 1) if op[0] == "mkdir")
    return [*range(begin, end + 1)]


MOMENTS = {
    "first save": lambda operations: saving(operations, "00000000"),
    "last save": lambda operations: saving(operations, "00000008"),
    "prune": lambda operations: [
        *range(named(operations, "rename", "-step-00000000"), named(operations, "rmdir", "-step-00000000") + 2)
    ],
    "before the result": lambda operations: [
        *range(named(operations, "rmdir", "-step-00000004") + 1, len(operations) + 1)
    ],
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_then_loses_nothing(moment, operations, trials, tell):
    points = MOMENTS[moment](operations)
    assert points
    answers = trials.all([{"trial": "kill_at", "at": at} for at in (points if ALL else points[::4])])
    tell("K6", *counted(answers))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_of_what_resumes_loses_nothing(moment, operations, trials, tell):
    """The resumed training is killed at its operations, one after the other, until it takes its first step."""
    points = MOMENTS[moment](operations)
    pairs = [(at, then) for at in points[1 :: len(points) // 2] for then in range(1, 16)]
    answers = trials.all(
        [{"trial": "kill_twice", "at": at, "then": then} for at, then in (pairs if ALL else pairs[::5])]
    )
    tell("K6", *counted(answers))


def test_a_finished_run_resumed_changes_nothing(trials, tell):
    tell("K6", *counted([trials.one({"trial": "finished"})]))
