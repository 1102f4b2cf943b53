"""Downloads files whose size and SHA-256 are known beforehand, so that nothing else can come in their place.

A file grows under the name NAME.part, which whoever comes next continues, and gets its own name when it is whole, is
the one that was asked for, and lies on the disk. Only https is spoken, after a redirect too.
"""

from __future__ import annotations

import fcntl
import io
import os
import queue
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO

from vaezoo.core.atomic import atomic_replace, sha256
from vaezoo.errors import InputError, StorageError, first_line

SAFE: tuple[str, ...] = ("https://",)  # how addresses begin that are asked; the tests name their own server here
TIMEOUT = 15.0  # seconds without an answer, or with less than LEAST bytes, after which an attempt has failed
LEAST = 16 * 1024
TRIES = 5  # attempts at one address, each of which must have brought the file further
CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        urls: Where it can be had, in the order in which they are tried.
        size: Its bytes.
        sha256: Their hash, in hexadecimal.
    """

    urls: tuple[str, ...]
    size: int
    sha256: str


class _AttemptError(Exception):
    """An attempt failed for the reason that it holds; another one may not."""


def fetch(remote: Remote, root: Path, name: str) -> None:
    """Downloads a file to `root / name`, unless it is there already.

    Several processes may do so at once: one downloads, the others wait for it.

    Raises:
        InputError: If it cannot be had, or what can be had is another file.
        StorageError: If it cannot be written.
    """
    target = root / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target) as part:
            if target.exists():
                return
            failure = _download(remote, part)
            if failure is None:
                atomic_replace(Path(part.name), target)
                return
    except OSError as error:
        raise StorageError(
            f"cannot write {target}: {error.strerror or first_line(error)}",
            "pass --data-dir with a folder that has room and can be written to",
        ) from error
    raise InputError(
        f"{name} is not in '{root}' and cannot be downloaded: {failure}",
        f"pass --data-dir with the folder that holds it, or put {remote.urls[0]} there by other means",
    )


@contextmanager
def _alone(target: Path) -> Iterator[IO[bytes]]:
    """Opens the part of `target` that is there, for one process at a time; removes it if it is of no more use."""
    path = target.with_name(target.name + ".part")
    while True:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _lies_at(path, file):
                continue  # the one before us gave it its final name, or removed it
            try:
                yield file
            finally:
                if target.exists() or os.fstat(file.fileno()).st_size == 0:
                    path.unlink(missing_ok=True)
            return


def _lies_at(path: Path, file: IO[bytes]) -> bool:
    """Tells whether an open file is the one that `path` names now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _download(remote: Remote, part: IO[bytes]) -> str | None:
    """Completes a file, trying one address after the other, or returns why that cannot be done."""
    reason = ""
    for url in remote.urls:
        for _ in range(TRIES):
            before = _size(part)
            try:
                _continue(url, part, remote.size)
                _verify(url, part, remote)
                return None
            except _AttemptError as error:
                reason = str(error)
            if _size(part) == before:  # nothing came; or all, anew, and it was another file
                break
    return reason


def _verify(url: str, part: IO[bytes], remote: Remote) -> None:
    """Raises unless the file is the one that was asked for; of another one nothing is kept."""
    part.flush()
    if sha256(Path(part.name)) != remote.sha256:
        part.truncate(0)
        raise _AttemptError(f"what {url} gives is another file: its SHA-256 differs")


def _continue(url: str, part: IO[bytes], size: int) -> None:
    """Appends to a file what it lacks of `size` bytes; starts anew where the server cannot continue."""
    start = _size(part)
    if start >= size:
        return
    try:
        answer = _open(url, start)
    except _AttemptError as error:
        if getattr(error.__cause__, "code", None) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.truncate(0)  # the file there is shorter
        raise
    with answer:
        if not (start and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")):
            part.truncate(0)
            if answer.status != HTTPStatus.OK:
                raise _AttemptError(f"{url} does not answer with the whole file but {answer.status} {answer.reason}")
        _receive(answer, part, size)


def _receive(answer: HTTPResponse, part: IO[bytes], size: int) -> None:
    """Appends what comes, up to `size` bytes in all."""
    left = size - _size(part)
    got, deadline = 0, time.monotonic() + TIMEOUT
    while left > 0:
        try:
            chunk = answer.read1(min(CHUNK, left))
        except (OSError, HTTPException) as error:
            raise _AttemptError(_reason(error)) from error
        if not chunk:
            raise _AttemptError(f"the connection ended {left:,} bytes early")
        part.write(chunk)
        left, got = left - len(chunk), got + len(chunk)
        if time.monotonic() > deadline:
            if got < LEAST:
                raise _AttemptError(f"only {got:,} bytes came in {TIMEOUT:g} s")
            got, deadline = 0, time.monotonic() + TIMEOUT


def _open(url: str, start: int) -> HTTPResponse:
    """Asks for a file from byte `start` on; fails within `TIMEOUT` seconds.

    In a thread, because names are looked up without a limit, a name may stand for eight addresses that are each
    waited for where a firewall swallows what is sent, and a header may come byte by byte.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    outcome: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            _check(url)
            outcome.put(urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT))
        except (_AttemptError, OSError, HTTPException, ValueError) as error:
            outcome.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = outcome.get(timeout=TIMEOUT)
    except queue.Empty:
        raise _AttemptError(f"no answer from {url}") from None
    if isinstance(answer, Exception):
        raise _AttemptError(_reason(answer)) from answer
    return answer


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to safe addresses alone; urllib itself goes from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        _check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check(url: str) -> None:
    """Raises unless an address is a safe one."""
    if not url.startswith(SAFE):
        raise _AttemptError(f"{url} is not https")


def _size(file: IO[bytes]) -> int:
    return file.seek(0, io.SEEK_END)


def _reason(error: Exception) -> str:
    """Returns in one clause why there is no answer; urllib wraps the system's errors."""
    if isinstance(error, HTTPException):  # it holds what the server wrote
        return f"the answer is broken ({type(error).__name__})"
    reason = getattr(error, "reason", None)
    return first_line(reason if isinstance(reason, Exception) else error)
