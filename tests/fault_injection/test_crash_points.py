"""Kills at the critical moments of a training: the first and last save, pruning, resuming, and the end."""

import pytest
from injector import ALL_FAULTS
from test_kills import summarize


@pytest.fixture(scope="module")
def operations(workers) -> list[list[str]]:
    """What a training does to its folder: kind, path and other path of each operation."""
    return workers.run({"case": "list_operations"})["operations"]


def find(operations, kind: str, name: str) -> int:
    """Returns the number, counted from 1, of the first operation of a kind on a path that ends in a name."""
    return next(n for n, op in enumerate(operations, 1) if op[0] == kind and any(p.endswith(name) for p in op[1:]))


def saving(operations, step: str) -> list[int]:
    """Returns the operations that save a step: from its temporary folder to the fsync after the rename."""
    end = find(operations, "rename", f"/step-{step}") + 1
    begin = max(n for n, op in enumerate(operations[:end], 1) if op[0] == "mkdir")
    return [*range(begin, end + 1)]


MOMENTS = {
    "first save": lambda operations: saving(operations, "00000000"),
    "last save": lambda operations: saving(operations, "00000008"),
    "prune": lambda operations: [
        *range(find(operations, "rename", "-step-00000000"), find(operations, "rmdir", "-step-00000000") + 2)
    ],
    "before the result": lambda operations: [
        *range(find(operations, "rmdir", "-step-00000004") + 1, len(operations) + 1)
    ],
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_training_resumes(moment, operations, workers, check_cases):
    points = MOMENTS[moment](operations)
    assert points
    chosen = points if ALL_FAULTS else points[::16]
    check_cases("K6", *summarize(workers.run_all([{"case": "kill_at", "at": at} for at in chosen])))


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_resume_resumes(moment, operations, workers, check_cases):
    """The resumed training is killed at each of its operations before its first step."""
    points = MOMENTS[moment](operations)
    pairs = [(at, then) for at in points[1 :: len(points) // 2] for then in range(1, 16)]
    requests = [{"case": "kill_twice", "at": at, "then": then} for at, then in (pairs if ALL_FAULTS else pairs[::5])]
    check_cases("K6", *summarize(workers.run_all(requests)))


def test_finished_run_is_unchanged(workers, check_cases):
    check_cases("K6", *summarize([workers.run({"case": "resume_finished"})]))
