"""A training that is killed, or whose disk fails, at any operation goes on and ends as if nothing had been."""

import pytest
from rig import ALL, ERRORS


@pytest.fixture(scope="module")
def count(trials):
    """How many operations a training has that change its folder."""
    return len(trials.one({"trial": "operations"})["kinds"])


def bad(answers):
    return [answer for answer in answers if answer["bad"]]


def test_a_kill_at_any_operation_loses_nothing(count, trials, tell):
    points = range(1, count + 2) if ALL else [*range(1, count + 1, 11), count, count + 1]
    answers = trials.all([{"trial": "kill_at", "at": at} for at in points])
    tell("K2", len(answers), bad(answers))
    assert [a["at"] for a in answers if a["finished"]] == [count + 1]


def test_an_error_at_any_operation_is_told_and_loses_nothing(count, trials, tell):
    cases = [(at, how, sticky) for sticky in (False, True) for how in ERRORS for at in range(1, count + 1)]
    cases = cases if ALL else cases[::61]
    answers = trials.all([{"trial": "fail_at", "at": at, "how": how, "sticky": sticky} for at, how, sticky in cases])
    tell("K3", len(answers), bad(answers))


def test_a_kill_at_any_time_loses_nothing(trials, tell):
    answers = trials.all([{"trial": "kill_randomly", "seed": seed} for seed in range(200 if ALL else 20)])
    tell("K1", len(answers), bad(answers))


def test_ten_kills_in_a_row_lose_nothing(trials, tell):
    chains = [{"trial": "kill_randomly", "seed": 1000 + seed, "kills": 10} for seed in range(20 if ALL else 2)]
    tell("K5", len(chains), bad(trials.all(chains)))


@pytest.mark.parametrize("size", [0, 1, 100, 700, 1000, 2000, 3000, 4096, 6000])
def test_a_limit_to_the_size_of_files_is_told_and_loses_nothing(size, trials, tell):
    answer = trials.one({"trial": "limited", "size": size})
    tell("F1", 1, bad([answer]))
