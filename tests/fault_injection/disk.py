"""A disk that loses power: what may be there afterwards, by what was synced before.

An fsync of a file makes its bytes last, one of a folder its names; nothing else lasts for sure. What was not synced
may have happened or not: each change of names by itself (a rename as a whole), and of a file's new bytes some, none,
or zeros in their place. Real file systems do better than that, but promise no more.
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
    """A file's bytes: those that a process reads, and those that last."""

    now: bytes = b""
    lasting: bytes = b""


Node = Union[File, "Folder"]
Change = dict[str, Node | None]  # names -> what they stand for after it; None: nothing


@dataclass(eq=False)
class Folder:
    """A folder's names: those that a process sees, those that last, and the changes between the two."""

    now: dict[str, Node] = field(default_factory=dict)
    lasting: dict[str, Node] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        """Changes names."""
        make(self.now, change)
        self.pending.append(change)


def make(names: dict[str, Node], change: Change) -> None:
    """Makes a change to names."""
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """Follows the operations on a folder, which was empty and lasting."""

    def __init__(self) -> None:
        self.root = Folder()

    def find(self, path: str) -> Node:
        """Returns what is at a path, which is relative to the folder."""
        node: Node = self.root
        for name in PurePosixPath(path).parts:
            assert isinstance(node, Folder)
            node = node.now[name]
        return node

    def folder(self, path: str) -> Folder:
        """Returns the folder that a path lies in; a new one where there is none, so that the operation is in vain."""
        try:
            node = self.find(os.path.dirname(path))
        except KeyError:
            return Folder()
        assert isinstance(node, Folder)
        return node

    def do(self, op: Operation) -> None:
        """Does an operation as the system did it."""
        if op.kind == "chmod" or (op.kind == "mkdir" and not op.path):  # which is there
            return
        if op.kind == "fsync":
            self._sync(self.find(op.path))
            return
        folder, name = self.folder(op.path), os.path.basename(op.path)
        there = folder.now.get(name)
        if op.kind in ("unlink", "rmdir") and there:
            folder.change({name: None})
        elif op.kind == "mkdir" and not there:
            folder.change({name: Folder()})
        elif op.kind in ("rename", "exchange") and there:
            assert folder is self.folder(op.other), "a rename into another folder"
            other = os.path.basename(op.other)
            folder.change({name: folder.now[other] if op.kind == "exchange" else None, other: there})
        elif op.kind in ("create", "truncate", "write"):
            if not there:
                folder.change({name: (there := File())})
            assert isinstance(there, File)
            self._fill(there, op)

    def _sync(self, node: Node) -> None:
        if isinstance(node, File):
            node.lasting = node.now
        else:
            node.lasting = dict(node.now)
            node.pending.clear()

    def _fill(self, file: File, op: Operation) -> None:
        if op.kind == "truncate":
            file.now = file.now[: op.offset]
        elif op.kind == "write":
            file.now = file.now[: op.offset].ljust(op.offset, b"\0") + op.data + file.now[op.offset + len(op.data) :]


Names = Callable[[list[Change]], list[Change]]  # picks of the pending changes those that happened
Bytes = Callable[[File], bytes]  # picks what a file holds


def tree(folder: Folder, names: Names, data: Bytes) -> Tree:
    """Returns what is there after the power came back."""
    entries = dict(folder.lasting)
    for change in names(folder.pending):
        make(entries, change)
    return {n: data(node) if isinstance(node, File) else tree(node, names, data) for n, node in entries.items()}


def present(folder: Folder) -> Tree:
    """Returns what is there with the power on."""
    return tree(folder, all_names, lambda file: file.now)


def all_names(pending: list[Change]) -> list[Change]:
    return pending


def no_names(pending: list[Change]) -> list[Change]:
    return []


def kept(file: File) -> bytes:
    """Returns the bytes that last under what was appended; none, if the file was written anew."""
    return file.lasting if file.now.startswith(file.lasting) else b""


def zeros(file: File) -> bytes:
    """The new length lasted, the new bytes did not."""
    return kept(file).ljust(len(file.now), b"\0")


def crashes(disk: Disk, chance: random.Random, drawn: int) -> Iterator[Tree]:
    """Yields trees that a loss of power right now may leave; `drawn` of them at random."""

    def cut(file: File) -> bytes:
        return file.now[: chance.randint(len(kept(file)), len(file.now))]

    def some(pending: list[Change]) -> list[Change]:
        return [change for change in pending if chance.random() < 0.5]

    def first(pending: list[Change]) -> list[Change]:
        return pending[: chance.randrange(len(pending) + 1)]

    def any_of(file: File) -> bytes:
        how = chance.choice((zeros, cut, lambda file: file.lasting, lambda file: file.now))
        return how(file)

    for data in (zeros, cut, lambda file: file.lasting):
        yield tree(disk.root, all_names, data)
    yield tree(disk.root, no_names, any_of)
    for number in range(drawn):
        yield tree(disk.root, (some, first)[number % 2], any_of)


def write(made: Tree, folder: Path) -> None:
    """Writes a tree into a folder."""
    folder.mkdir(exist_ok=True)
    for name, node in made.items():
        if isinstance(node, bytes):
            (folder / name).write_bytes(node)
        else:
            write(node, folder / name)


def read(folder: Path) -> Tree:
    """Reads a folder as a tree."""
    return {p.name: read(p) if p.is_dir() else p.read_bytes() for p in folder.iterdir()}
