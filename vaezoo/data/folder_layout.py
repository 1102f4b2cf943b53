"""The layout of a folder of images or sound: which folders are splits, which are classes, and which files they have."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from vaezoo.data.folder_scan import Folder
from vaezoo.data.labels import order_names
from vaezoo.errors import InputError

# The words by which data sets name their splits, in lower case.
SPLIT_WORDS = {
    "train": ("train", "training", "trn", "trainset", "traindata", "trainval"),
    "valid": ("val", "valid", "validation", "dev", "valset", "validset", "devset"),
    "test": ("test", "testing", "tst", "testset", "testdata", "eval", "evaluation", "holdout"),
}
SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}
FILLERS = ("set", "data", "dataset", "image", "images", "img", "imgs", "split", "samples")  # as in training_set
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")  # seg_train, trainA and train2017 have two words each
YEAR = re.compile(r"(19|20)\d\d")

Classes: TypeAlias = dict[str, list[Path]]
"""The files of each class, both sorted. Without classes they are under the name ""."""


def split_of(name: str) -> str | None:
    """Returns the split that a file or folder is named after, such as test for `ptb.test.txt`, or None."""
    words = [word.lower() for word in WORD.findall(name)]
    found = {SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD}
    return found.pop() if len(found) == 1 else None


def find_splits(root: Folder) -> dict[str, Classes]:
    """Finds the splits of a folder of files and their classes.

    Split folders are known by their usual names, in upper or lower case: ROOT/{train,test}/CLASS,
    ROOT/CLASS/{train,test}, or one of these in the only folder of ROOT.

    Returns:
        The classes of train, and of valid and test if they exist. A folder without split folders is train.

    Raises:
        InputError: If split folders lie beside other folders or files, if the training split is missing, or if files
            lie beside class folders.
    """
    return _named_splits(root) or {"train": _find_classes(root)}


def find_files(root: Folder) -> dict[str, Classes]:
    """Finds files that need no classes, such as those that a trained model is applied to.

    Splits and classes are those of `find_splits`. But files may lie beside folders here: all of them are found then,
    without classes. They are in natural order, where 2.png comes before 10.png, unless the folder has splits.

    Raises:
        InputError: If split folders lie beside other folders or files, or if the training split is missing.
    """
    if splits := _named_splits(root):
        return splits
    classes = {"": _files(root)} if root.files and root.folders else _find_classes(root)
    return {"train": {name: sorted(files, key=_natural) for name, files in classes.items()}}


def _natural(path: Path) -> list[tuple[str, int, str]]:
    """Returns the key that sorts paths with the numbers in them by size, and equal ones as text."""
    parts = re.split(r"([0-9]+)", path.as_posix())
    texts, numbers = parts[::2], [*parts[1::2], ""]
    return [(text, int(number or -1), number) for text, number in zip(texts, numbers, strict=True)]


def _named_splits(folder: Folder) -> dict[str, Classes] | None:
    """Returns the splits that folders are named after, or None if there are none."""
    while not (splits := _split_folders(folder)) and len(folder.folders) == 1 and not folder.files:
        (folder,) = folder.folders.values()
    if splits:
        return {split: _find_classes(splits[split]) for split in SPLIT_WORDS if split in splits}
    return _splits_of_classes(folder)


def _split_folders(folder: Folder) -> dict[str, Folder] | None:
    """Returns the split folders in a folder by the names of `SPLIT_WORDS`, or None if there are none."""
    groups = _group_by_split(folder)
    rests = [rest for rest, group in groups.items() if not rest or _is_pair(group)]
    if not rests:
        return None
    names = groups[rests[0]]
    first = (names.get("train") or next(iter(names.values())))[0]
    used = {found[0] for found in names.values()}
    if odd := next((name for name in order_names(folder.folders) if name not in used), None):
        twin = next((split for split, found in names.items() if odd in found), None)
        if twin:
            raise InputError(
                f"'{folder.path}' has two folders of the {twin} split, '{names[twin][0]}' and '{odd}'",
                "move one of them away",
            )
        raise InputError(
            f"'{folder.path}' has the split folder '{first}' and also the folder '{odd}'",
            f"move '{odd}' away, or rename '{first}' if it is a class",
        )
    if folder.files:
        noun = folder.kind.noun
        raise InputError(
            f"'{folder.path}' has the split folder '{first}' and also {noun} of its own, such as "
            f"'{folder.files[0].name}'",
            f"move the {noun} into '{first}' or away, or rename '{first}' if it is a class",
        )
    if "train" not in names:
        raise InputError(
            f"'{folder.path}' has the split folder '{first}' but no folder of training {folder.kind.noun}",
            f"name '{folder.path / first}' itself, or rename it if it is a class",
        )
    return {split: _unwrap(folder.folders[found[0]]) for split, found in names.items()}


def _group_by_split(folder: Folder) -> dict[tuple[str, ...], dict[str, list[str]]]:
    """Groups the folders named after splits: other words of the name -> split -> names."""
    groups: dict[tuple[str, ...], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in order_names(folder.folders):
        words = [word.lower() for word in WORD.findall(name)]
        splits = [SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD]
        if len(splits) == 1:
            known = (*SPLIT_OF_WORD, *FILLERS)
            groups[tuple(w for w in words if w not in known and not YEAR.fullmatch(w))][splits[0]].append(name)
    return groups


def _is_pair(group: dict[str, list[str]]) -> bool:
    """Returns whether names differ only in the split, such as seg_train and seg_test. A class is a `bullet train`."""
    return "train" in group and len(group) > 1


def _unwrap(split: Folder) -> Folder:
    """Returns the folder of a split that some archives repeat, as in train/train/CLASS."""
    while len(split.folders) == 1 and not split.files:
        ((name, only),) = split.folders.items()
        if name != split.path.name:
            break
        split = only
    return split


def _splits_of_classes(folder: Folder) -> dict[str, Classes] | None:
    """Returns the splits of a folder whose class folders have split folders, or None if they have none."""
    names = order_names(folder.folders)
    parts = {name: _split_folders(folder.folders[name]) for name in names}
    with_parts = next((name for name, splits in parts.items() if splits), None)
    if with_parts is None:
        return None
    without = next((name for name, splits in parts.items() if not splits), None)
    if without or folder.files:
        raise InputError(
            f"'{folder.path / with_parts}' has split folders, but "
            + (
                f"'{folder.path / without}' has none"
                if without
                else f"'{folder.path}' also has {folder.kind.noun} of its own"
            ),
            "give all classes the same split folders, or move the others away",
        )
    found: dict[str, Classes] = {}
    for name, splits in parts.items():
        for split, part in (splits or {}).items():
            if part.folders:
                noun, one = folder.kind.noun, folder.path / name
                raise InputError(
                    f"'{part.path}' has folders of its own, so '{name}' may be a data set or a class",
                    f"name one data set, such as '{one}', or put the {noun} into '{part.path}' itself",
                )
            found.setdefault(split, {})[name] = _files(part)
    return {split: found[split] for split in SPLIT_WORDS if split in found}


def _find_classes(folder: Folder) -> Classes:
    """Returns the files of each class of a split.

    Raises:
        InputError: If some files are in class folders and some are not, or a class has split folders.
    """
    if folder.files and folder.folders:
        noun = folder.kind.noun
        raise InputError(
            f"'{folder.path}' has {noun} of its own and also folders of {noun}, such as "
            f"'{order_names(folder.folders)[0]}'",
            f"keep only {noun}, or only one folder for each class",
        )
    for below in folder.below():
        if any(_is_pair(group) for group in _group_by_split(below).values()):
            raise InputError(
                f"'{below.path}' has split folders, such as '{order_names(below.folders)[0]}', inside a class",
                f"name '{below.path}' itself, or move the splits to the top of '{folder.path}'",
            )
    return {name: _files(folder.folders[name]) for name in order_names(folder.folders)} or {"": _files(folder)}


def _files(folder: Folder) -> list[Path]:
    """Returns the files in a folder and all folders below it, sorted."""
    return sorted((file for part in (folder, *folder.below()) for file in part.files), key=Path.as_posix)


def require_same_classes(splits: Mapping[str, Classes], root: Folder) -> None:
    """Raises InputError unless all splits have the classes of train."""
    for name, split in splits.items():
        if different := order_names(splits["train"].keys() ^ split.keys()):
            where = "train" if different[0] in splits["train"] else name
            what = f"class '{different[0]}'" if different[0] else f"{root.kind.noun} outside of class folders"
            raise InputError(
                f"train and {name} in '{root.path}' have different classes: only {where} has {what}",
                "give both the same class folders",
            )


def class_numbers(split: Classes) -> Tensor | None:
    """Returns the class of each file of a split, int64 `(N,)`, or None if there are no classes."""
    counts = torch.tensor([len(files) for files in split.values()])
    return None if "" in split else torch.arange(len(counts)).repeat_interleave(counts)
