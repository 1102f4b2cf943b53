"""A model of a disk that loses power: which files may be there afterwards.

An fsync of a file makes its bytes durable, an fsync of a folder makes its names durable. Nothing else is durable for
sure. Each change of names since the last fsync may have happened or not. A rename is one change. Of a file's new bytes
some, none, or zeros in their place may be there. Real file systems do better, but promise no more.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Union

from injector import Operation

Tree = dict[str, Union[bytes, "Tree"]]


@dataclass(eq=False)
class File:
    """A file: the bytes that a process reads now, and the durable bytes."""

    now: bytes = b""
    durable: bytes = b""


Node = Union[File, "Folder"]
Change = dict[str, Node | None]  # name -> what it stands for afterwards, or None if it is gone


@dataclass(eq=False)
class Folder:
    """A folder: the names that a process sees now, the durable ones, and the changes between the two."""

    now: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        apply(self.now, change)
        self.pending.append(change)


def apply(names: dict[str, Node], change: Change) -> None:
    """Applies a change to names in place."""
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """Follows the operations on a folder that is empty and durable at first."""

    def __init__(self) -> None:
        self.root = Folder()

    def find(self, path: str) -> Node:
        """Returns the file or folder at a path relative to the root."""
        node: Node = self.root
        for name in PurePosixPath(path).parts:
            assert isinstance(node, Folder)
            node = node.now[name]
        return node

    def parent(self, path: str) -> Folder:
        """Returns the folder that contains a path. If it does not exist, a new one: the operation has no effect."""
        try:
            node = self.find(os.path.dirname(path))
        except KeyError:
            return Folder()
        assert isinstance(node, Folder)
        return node

    def do(self, op: Operation) -> None:
        """Applies an operation as the system applied it."""
        if op.kind == "chmod" or (op.kind == "mkdir" and not op.path):  # the root exists
            return
        if op.kind == "fsync":
            self._sync(self.find(op.path))
            return
        folder, name = self.parent(op.path), os.path.basename(op.path)
        node = folder.now.get(name)
        if op.kind in ("unlink", "rmdir") and node:
            folder.change({name: None})
        elif op.kind == "mkdir" and not node:
            folder.change({name: Folder()})
        elif op.kind in ("rename", "exchange") and node:
            assert folder is self.parent(op.other), "a rename into another folder"
            other = os.path.basename(op.other)
            folder.change({name: folder.now[other] if op.kind == "exchange" else None, other: node})
        elif op.kind in ("create", "truncate", "write"):
            if not node:
                folder.change({name: (node := File())})
            assert isinstance(node, File)
            self._fill(node, op)

    def _sync(self, node: Node) -> None:
        if isinstance(node, File):
            node.durable = node.now
        else:
            node.durable = dict(node.now)
            node.pending.clear()

    def _fill(self, file: File, op: Operation) -> None:
        if op.kind == "truncate":
            file.now = file.now[: op.offset]
        elif op.kind == "write":
            file.now = file.now[: op.offset].ljust(op.offset, b"\0") + op.data + file.now[op.offset + len(op.data) :]


PickChanges = Callable[[list[Change]], list[Change]]  # the pending changes that happened
PickBytes = Callable[[File], bytes]  # the bytes that the file holds


def tree(folder: Folder, pick_changes: PickChanges, pick_bytes: PickBytes) -> Tree:
    """Returns the tree after a loss of power."""
    entries = dict(folder.durable)
    for change in pick_changes(folder.pending):
        apply(entries, change)
    return {
        name: pick_bytes(node) if isinstance(node, File) else tree(node, pick_changes, pick_bytes)
        for name, node in entries.items()
    }


def present(folder: Folder) -> Tree:
    """Returns the tree without a loss of power."""
    return tree(folder, all_changes, lambda file: file.now)


def all_changes(pending: list[Change]) -> list[Change]:
    return pending


def no_changes(pending: list[Change]) -> list[Change]:
    return []


def durable_prefix(file: File) -> bytes:
    """Returns the durable bytes if the file was only appended to since, else nothing."""
    return file.durable if file.now.startswith(file.durable) else b""


def zeros(file: File) -> bytes:
    """The new length is durable, the new bytes are not."""
    return durable_prefix(file).ljust(len(file.now), b"\0")


def trees_after_power_loss(disk: Disk, rng: random.Random, draws: int) -> Iterator[Tree]:
    """Yields trees that a loss of power at this moment may leave: four fixed kinds, then `draws` random ones."""

    def cut(file: File) -> bytes:
        return file.now[: rng.randint(len(durable_prefix(file)), len(file.now))]

    def random_changes(pending: list[Change]) -> list[Change]:
        return [change for change in pending if rng.random() < 0.5]

    def first_changes(pending: list[Change]) -> list[Change]:
        return pending[: rng.randrange(len(pending) + 1)]

    def random_bytes(file: File) -> bytes:
        pick = rng.choice((zeros, cut, lambda file: file.durable, lambda file: file.now))
        return pick(file)

    for pick_bytes in (zeros, cut, lambda file: file.durable):
        yield tree(disk.root, all_changes, pick_bytes)
    yield tree(disk.root, no_changes, random_bytes)
    for number in range(draws):
        yield tree(disk.root, (random_changes, first_changes)[number % 2], random_bytes)


def write(content: Tree, folder: Path) -> None:
    """Writes a tree into a folder."""
    folder.mkdir(exist_ok=True)
    for name, node in content.items():
        if isinstance(node, bytes):
            (folder / name).write_bytes(node)
        else:
            write(node, folder / name)


def read(folder: Path) -> Tree:
    """Reads a folder as a tree."""
    return {p.name: read(p) if p.is_dir() else p.read_bytes() for p in folder.iterdir()}
