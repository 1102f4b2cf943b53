"""Lists the images or the sound files in a folder and all folders below it, and counts what is left out."""

from __future__ import annotations

import os
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vaezoo.errors import InputError, VaezooWarning, safe_repr

# Files that often lie beside data and hold none. They are ignored without a warning.
SIDECARS = frozenset(
    f".{name}"
    for name in (
        *("aae", "bat", "cache", "cfg", "css", "csv", "db", "doc", "docx", "htm", "html", "ini", "ipynb", "js", "json"),
        *("jsonl", "license", "lnk", "lock", "log", "md", "md5", "pdf", "py", "rst", "sh", "sha256", "toml", "tsv"),
        *("txt", "url", "xls", "xlsx", "xml", "xmp", "yaml", "yml"),
    )
)
LINKS = "linked folder"  # that was read already
MAX_SUFFIXES = 6  # in a warning


class FileKind(NamedTuple):
    """The files that a data set consists of.

    Attributes:
        noun: What messages call them, such as "images".
        formats: Their formats, for messages.
        suffixes: The suffixes of their names, in lower case.
    """

    noun: str
    formats: tuple[str, ...]
    suffixes: tuple[str, ...]


@dataclass(slots=True)
class Folder:
    """A folder that has files of a kind in it or below it.

    Attributes:
        path: Its path. A linked folder has the path of the link.
        kind: The kind of the files.
        files: The files directly in it, sorted.
        folders: The folders directly in it that have files, by name.
    """

    path: Path
    kind: FileKind
    files: list[Path] = field(default_factory=list)
    folders: dict[str, Folder] = field(default_factory=dict)

    def below(self) -> Iterator[Folder]:
        """Yields all folders below this one."""
        waiting = [*self.folders.values()]
        while waiting:
            folder = waiting.pop()
            waiting += folder.folders.values()
            yield folder


def scan(root: Path, kind: FileKind) -> Folder:
    """Lists the files of a kind under `root`, without hidden files and folders.

    Links to folders are followed. Each folder is read once, by its own path if it has one under `root`, so links cannot
    form a loop. One VaezooWarning counts by suffix the files that are left out, except those named in `SIDECARS`.

    Raises:
        InputError: If there are none, or a folder cannot be listed.
    """
    if not root.is_dir():
        raise InputError(f"no folder '{root}'", f"name a folder of {kind.noun}")
    tree, left_out = _read_tree(root, kind)
    text = _describe(left_out)
    if not tree.files and not tree.folders:
        found = f", only {text}" if text else ""
        hint = f"add {kind.noun} of the formats {', '.join(kind.formats)}"
        raise InputError(f"no {kind.noun} in folder '{root}'{found}", hint)
    if text:
        warnings.warn(f"left out of '{root}': {text}; {kind.noun} are {', '.join(kind.formats)}", VaezooWarning, 5)
    return tree


def _read_tree(root: Path, kind: FileKind) -> tuple[Folder, Counter[str]]:
    """Returns the folder `root` without empty folders, and the number of left out files by suffix."""
    left_out: Counter[str] = Counter()
    tree = Folder(root, kind)
    folders, seen = [], set()
    waiting, links = deque([(tree, tree)]), deque[tuple[Folder, Folder]]()  # folders with their parents
    while waiting or links:
        parent, folder = waiting.popleft() if waiting else links.popleft()
        status = folder.path.stat()
        if (status.st_dev, status.st_ino) in seen:
            left_out[LINKS] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.append((parent, folder))
        for entry in _entries(folder.path):
            suffix = os.path.splitext(entry.name)[1].lower()
            if _is_folder(entry):
                (links if entry.is_symlink() else waiting).append((folder, Folder(folder.path / entry.name, kind)))
            elif suffix in kind.suffixes:
                folder.files.append(folder.path / entry.name)
            elif suffix and suffix not in SIDECARS:
                left_out[suffix] += 1
    for parent, folder in reversed(folders[1:]):  # a folder comes after its parent
        if folder.files or folder.folders:
            parent.folders[folder.path.name] = folder
    return tree, left_out


def _entries(path: Path) -> list[os.DirEntry[str]]:
    """Returns the entries of a folder that are not hidden, sorted."""
    try:
        with os.scandir(path) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"folder '{error.filename}' cannot be listed: {error.strerror}", "make it readable") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _describe(left_out: Counter[str]) -> str:
    """Returns the numbers of left out files, such as "12 .heic files and 1 .svg file"."""
    texts = [
        f"{n:,} {suffix if suffix == LINKS else f'{safe_repr(suffix)} file'}{'s' if n > 1 else ''}"
        + (" read already" if suffix == LINKS else "")
        for suffix, n in left_out.most_common(MAX_SUFFIXES)
    ]
    more = sum(left_out.values()) - sum(n for _, n in left_out.most_common(MAX_SUFFIXES))
    return ", ".join([*texts, f"{more:,} more"] if more else texts)
