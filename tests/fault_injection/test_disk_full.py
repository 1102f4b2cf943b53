"""A full disk is told, nothing that was saved is lost, and with space the training goes on."""

import pytest
from test_kills import counted


@pytest.mark.parametrize("size", [0, 1, 100, 700, 1000, 2000, 3000, 4096, 6000])
def test_a_limit_to_the_size_of_files_is_told_and_loses_nothing(size, trials, tell):
    tell("F1", *counted([trials.one({"trial": "limited", "size": size})]))


@pytest.mark.parametrize(
    ("part", "less"),
    [(0, 0), (0, -4096), (0.25, 0), (0.5, 0), (0.75, 0), (1, 1), (1, 0)],
    ids=["nothing", "a page", "quarter", "half", "most", "one byte short", "enough"],
)
def test_a_full_disk_is_told_and_loses_nothing(part, less, trials, tell):
    told(trials.one({"trial": "full_disk", "part": part, "less": less}), tell)


def test_the_folder_for_temporary_files_may_be_full(trials, tell):
    told(trials.one({"trial": "full_tmpdir"}), tell)


def told(answer, tell) -> None:
    if answer.get("skipped"):
        pytest.skip(answer["skipped"])
    tell("F1", *counted([answer]))
