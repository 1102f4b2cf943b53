"""Downloads files of known size and SHA-256. Only https is used, also after a redirect.

A file grows under the name NAME.part, and the next call resumes it. It gets its own name when it is complete, has the
right hash and is on the disk.
"""

from __future__ import annotations

import contextlib
import io
import queue
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO

from vaezoo.core.atomic import atomic_replace, sha256
from vaezoo.errors import InputError, StorageError, first_line

URL_PREFIXES: tuple[str, ...] = ("https://",)  # of the URLs that are allowed; tests put their own server here
TIMEOUT = 15.0  # seconds: an attempt fails without an answer, or if fewer than MIN_BYTES arrive in this time
MIN_BYTES = 16 * 1024
MAX_ATTEMPTS = 5  # for one URL; only an attempt that brought new bytes is followed by another
CHUNK_SIZE = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        urls: Its URLs, in the order in which they are tried.
        size: Its size in bytes.
        sha256: Its hash, in hexadecimal.
    """

    urls: tuple[str, ...]
    size: int
    sha256: str


class _AttemptError(Exception):
    """An attempt failed, for the reason in the message. Another attempt may succeed."""


def fetch(remote: Remote, root: Path, name: str) -> None:
    """Downloads a file to `root / name`, unless it exists.

    Several processes may call this at the same time. One of them downloads and the others wait. If nothing arrives, the
    folders that were made are removed.

    Raises:
        InputError: If the file cannot be downloaded, or every server sends another file.
        StorageError: If it cannot be written.
    """
    target = root / name
    part = target.with_name(f"{target.name}.part")
    new_folders = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(target, new_folders):
            if target.exists():
                return
            failure = _download(remote, part)
            if failure is None:
                atomic_replace(part, target)
                return
    except OSError as error:
        raise StorageError(
            f"cannot write {target}: {error.strerror or first_line(error)}",
            "pass --data-dir with a writable folder that has free space",
        ) from error
    raise InputError(
        f"{name} is not in '{root}' and cannot be downloaded: {failure}",
        f"pass --data-dir with the folder that contains it, or save {remote.urls[0]} there yourself",
    )


@contextlib.contextmanager
def _exclusive(target: Path, new_folders: Sequence[Path]) -> Iterator[None]:
    """Lets one process at a time download `target`, by a lock on the file NAME.lock.

    At the end it removes the folders that are new, if they are empty. Some network disks have no locks. There two
    downloads may spoil each other, which the hash detects.
    """
    from filelock import FileLock  # takes 0.1 s, and most data sets need no download

    lock = FileLock(target.with_name(f"{target.name}.lock"))
    with contextlib.suppress(OSError, NotImplementedError):  # in a read-only folder the download itself will fail
        for _ in range(MAX_ATTEMPTS):
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another process has just removed the folder
                lock.acquire()
                break
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        # The file is removed while the lock is held. Waiting processes notice that and lock a new file.
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
            for folder in new_folders:
                folder.rmdir()  # fails if it holds a file, such as a partial one that the next call resumes
        lock.release()


def _download(remote: Remote, path: Path) -> str | None:
    """Completes the partial file at `path` from one URL after the other. Returns the reason if that fails."""
    reason = ""
    try:
        with path.open("a+b") as part:
            for url in remote.urls:
                for _ in range(MAX_ATTEMPTS):
                    before = _size(part)
                    try:
                        _resume(url, part, remote.size)
                        _verify(url, part, remote)
                        return None
                    except _AttemptError as error:
                        reason = str(error)
                    if _size(part) == before:  # the server sent nothing, or a whole file with another hash
                        break
    finally:
        if path.exists() and path.stat().st_size == 0:
            path.unlink()
    return reason


def _verify(url: str, part: IO[bytes], remote: Remote) -> None:
    """Raises an error and empties the file if it is not the expected one."""
    part.flush()
    if sha256(Path(part.name)) != remote.sha256:
        part.truncate(0)
        raise _AttemptError(f"{url} sends another file: its SHA-256 differs")


def _resume(url: str, part: IO[bytes], size: int) -> None:
    """Appends the missing bytes, up to `size` bytes in all. Starts again if the server cannot resume."""
    start = _size(part)
    if start >= size:
        return
    try:
        response = _request(url, start)
    except _AttemptError as error:
        if getattr(error.__cause__, "code", None) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.truncate(0)  # the server's file is shorter
        raise
    with response:
        if not (start and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")):
            part.truncate(0)
            if response.status != HTTPStatus.OK:
                raise _AttemptError(f"{url} does not send the whole file but {response.status} {response.reason}")
        _receive(response, part, size)


def _receive(response: HTTPResponse, part: IO[bytes], size: int) -> None:
    """Appends the body of a response, up to `size` bytes in all."""
    missing = size - _size(part)
    received, deadline = 0, time.monotonic() + TIMEOUT  # since the last check of the speed
    while missing > 0:
        try:
            chunk = response.read1(min(CHUNK_SIZE, missing))
        except (OSError, HTTPException) as error:
            raise _AttemptError(_describe(error)) from error
        if not chunk:
            raise _AttemptError(f"the connection ended {missing:,} bytes early")
        part.write(chunk)
        missing, received = missing - len(chunk), received + len(chunk)
        if time.monotonic() > deadline:
            if received < MIN_BYTES:
                raise _AttemptError(f"only {received:,} bytes arrived in {TIMEOUT:g} s")
            received, deadline = 0, time.monotonic() + TIMEOUT


def _request(url: str, start: int) -> HTTPResponse:
    """Requests a file from byte `start` on. Fails within `TIMEOUT` seconds.

    The request runs in a thread, because three steps of it have no time limit of their own. The name lookup has none.
    A name may have eight addresses, and a firewall may drop the packets to each. Headers may arrive byte by byte.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    results: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def send() -> None:
        try:
            _check_url(url)
            results.put(urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT))
        except (_AttemptError, OSError, HTTPException, ValueError) as error:
            results.put(error)

    threading.Thread(target=send, daemon=True).start()
    try:
        result = results.get(timeout=TIMEOUT)
    except queue.Empty:
        raise _AttemptError(f"no answer from {url}") from None
    if isinstance(result, Exception):
        raise _AttemptError(_describe(result)) from result
    return result


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to allowed URLs only. urllib itself would also go from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str) -> None:
    """Raises an error if a URL is not allowed."""
    if not url.startswith(URL_PREFIXES):
        raise _AttemptError(f"{url} is not https")


def _size(file: IO[bytes]) -> int:
    return file.seek(0, io.SEEK_END)


def _describe(error: Exception) -> str:
    """Returns in one clause why a request failed. urllib wraps the errors of the system."""
    if isinstance(error, HTTPException):  # its text is what the server wrote
        return f"the answer is broken ({type(error).__name__})"
    reason = getattr(error, "reason", None)
    return first_line(reason if isinstance(reason, Exception) else error)
