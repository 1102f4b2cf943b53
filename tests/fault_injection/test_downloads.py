"""vaezoo.data.download: failing or lying servers, networks, disks and processes."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import multiprocessing
import os
import random
import re
import resource
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vaezoo.data import download
from vaezoo.data.download import Remote, fetch
from vaezoo.data.images import cifar, idx, svhn
from vaezoo.data.load import load_data
from vaezoo.errors import InputError, StorageError

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "MNIST/raw/file.gz"


class Handler(BaseHTTPRequestHandler):
    """Answers with the server's `answer` and records the Range headers of the requests."""

    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.answer(self)

    def log_message(self, *args: object) -> None: ...

    def start(self) -> int:
        """Returns the first requested byte."""
        return int((self.headers.get("Range") or "bytes=0-")[6:-1])

    def head(self, code: int, length: int, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, content: bytes, max_bytes: int | None = None) -> None:
        """Sends the requested range of `content`, or its first `max_bytes` bytes."""
        start = self.start()
        if start:
            self.head(206, len(content) - start, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.head(200, len(content))
        self.wfile.write(content[start:][:max_bytes])


class Server(ThreadingHTTPServer):
    """A server on this machine. Tests set its `answer`."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[Handler], None] = lambda request: request.send(CONTENT)
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    monkeypatch.setattr(download, "URL_PREFIXES", (server.url,))
    monkeypatch.setattr(download, "TIMEOUT", 60.0)  # only slow servers may meet it, however busy the machine is
    yield server
    server.shutdown()
    server.server_close()


def remote(server: Server, *names: str) -> Remote:
    return Remote(tuple(server.url + name for name in names or ("file.gz",)), len(CONTENT), SHA256)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def write_part(root: Path, content: bytes) -> None:
    """Writes the partial file of an earlier download."""
    (root / NAME).parent.mkdir(parents=True)
    (root / f"{NAME}.part").write_bytes(content)


def is_complete(root: Path) -> bool:
    """Returns whether the folder has the right file and no other."""
    return (root / NAME).read_bytes() == CONTENT and files(root) == [NAME]


# --- success in the end


def test_files_are_downloaded_once(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        fetch(remote(server), tmp_path, NAME)
        assert is_complete(tmp_path) and server.ranges == [None]
    assert capfd.readouterr() == ("", "")


OFFSETS = [0, 1, len(CONTENT) - 1, *random.Random(1).sample(range(len(CONTENT)), 9)]


@pytest.mark.parametrize("offset", OFFSETS)
def test_broken_connections_are_resumed(server: Server, tmp_path: Path, offset: int) -> None:
    def break_off(request: Handler) -> None:
        request.send(CONTENT, offset if request.start() == 0 else None)

    server.answer = break_off
    if offset == 0:  # without any bytes there is no second attempt
        with pytest.raises(InputError, match="ended 300,000 bytes early"):
            fetch(remote(server), tmp_path, NAME)
        assert files(tmp_path) == [] and server.ranges == [None]
    else:
        fetch(remote(server), tmp_path, NAME)
        assert is_complete(tmp_path) and server.ranges == [None, f"bytes={offset}-"]


def test_next_call_resumes(server: Server, tmp_path: Path) -> None:
    server.answer = lambda request: request.send(CONTENT, 1000)
    with pytest.raises(InputError, match="ended 295,000 bytes early"):
        fetch(remote(server), tmp_path, NAME)
    assert files(tmp_path) == [f"{NAME}.part"]
    server.answer = lambda request: request.send(CONTENT)
    fetch(remote(server), tmp_path, NAME)
    assert is_complete(tmp_path) and server.ranges[-1] == "bytes=5000-"


@pytest.mark.parametrize("offset", random.Random(2).sample(range(len(CONTENT)), 8))
def test_killed_download_is_resumed(server: Server, tmp_path: Path, offset: int) -> None:
    sent = threading.Event()

    def hang(request: Handler) -> None:
        request.send(CONTENT, offset)
        sent.set()
        time.sleep(30)

    server.answer = hang
    child = multiprocessing.get_context("fork").Process(target=fetch, args=(remote(server), tmp_path, NAME))
    child.start()
    assert sent.wait(60)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not (tmp_path / NAME).exists()
    server.answer = lambda request: request.send(CONTENT)
    fetch(remote(server), tmp_path, NAME)
    assert is_complete(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"garbage", CONTENT[:-1] + b"?", b"x" * 400_000, CONTENT + b"x", b""],
    ids=["other", "whole but other", "too long", "one byte more", "empty"],
)
def test_wrong_part_is_discarded(server: Server, tmp_path: Path, content: bytes) -> None:
    write_part(tmp_path, content)
    fetch(remote(server), tmp_path, NAME)
    assert is_complete(tmp_path) and server.ranges[-1] is None


def test_complete_part_is_renamed(server: Server, tmp_path: Path) -> None:
    write_part(tmp_path, CONTENT)
    fetch(remote(server), tmp_path, NAME)
    assert is_complete(tmp_path) and server.ranges == []


def ignores_range(request: Handler) -> None:
    request.head(200, len(CONTENT))
    request.wfile.write(CONTENT)


def range_not_satisfiable(request: Handler) -> None:
    request.head(416, 0) if request.start() else request.send(CONTENT)


def sends_another_range(request: Handler) -> None:
    if not request.start():
        return request.send(CONTENT)
    request.head(206, 100, Content_Range=f"bytes 0-99/{len(CONTENT)}")
    return request.wfile.write(CONTENT[:100]) and None


@pytest.mark.parametrize("answer", [ignores_range, range_not_satisfiable, sends_another_range])
def test_servers_that_cannot_resume(server: Server, tmp_path: Path, answer: Callable[[Handler], None]) -> None:
    write_part(tmp_path, CONTENT[:777])
    server.answer = answer
    fetch(remote(server), tmp_path, NAME)
    assert is_complete(tmp_path) and server.ranges[0] == "bytes=777-"


@pytest.mark.parametrize("code", [403, 404, 500, 503])
def test_next_url_is_tried(server: Server, tmp_path: Path, code: int) -> None:
    server.answer = lambda request: request.head(code, 0) if request.path == "/a" else request.send(CONTENT)
    fetch(remote(server, "a", "b"), tmp_path, NAME)
    assert is_complete(tmp_path)


def test_safe_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    def redirect(request: Handler) -> None:
        request.head(302, 0, Location="/b") if request.path == "/a" else request.send(CONTENT)

    server.answer = redirect
    fetch(remote(server, "a"), tmp_path, NAME)
    assert is_complete(tmp_path)


def test_load_data_downloads(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = {}
    for prefix, n in (("train", 4), ("t10k", 2)):
        head = bytes([0, 0, 8, 3]) + b"".join(k.to_bytes(4, "big") for k in (n, 5, 5))
        archives[f"{prefix}-images-idx3-ubyte"] = gzip.compress(head + CONTENT[: 25 * n])
        archives[f"{prefix}-labels-idx1-ubyte"] = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, n]) + bytes(range(n)))
    entries = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in archives.items()}
    monkeypatch.setitem(idx.FILES, "mnist", entries)
    monkeypatch.setitem(idx.HOSTS, "mnist", (server.url + "sets",))
    server.answer = lambda request: request.send(archives[request.path.removeprefix("/sets/").removesuffix(".gz")])
    train, test = load_data("mnist", data_dir=tmp_path).train, load_data("mnist", data_dir=tmp_path).test
    assert len(train) == 3 and test is not None and test.gather(slice(None)).x.numpy().tobytes() == CONTENT[:50]
    assert len(server.ranges) == 4 and files(tmp_path) == sorted(f"MNIST/raw/{name}.gz" for name in archives)


# --- failures


def other_bytes(request: Handler) -> None:
    request.send(CONTENT[:-1] + b"?")


def endless(request: Handler) -> None:
    request.head(200, 10**12)
    while True:
        request.wfile.write(b"x" * 65536)


def login_page(request: Handler) -> None:
    request.head(200, 20)
    request.wfile.write(b"<html>log in</html>\n")


def unrequested_range(request: Handler) -> None:
    request.head(206, 100, Content_Range="bytes 0-99/100")
    request.wfile.write(b"x" * 100)


def not_http(request: Handler) -> None:
    request.wfile.write(b"\0\1\2 hello\r\n\r\n")


def no_answer(request: Handler) -> None:
    time.sleep(30)


def slow_header(request: Handler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        request.wfile.write(b"A")
        time.sleep(0.05)


def slow_body(request: Handler) -> None:
    request.head(200, len(CONTENT))
    while True:
        request.wfile.write(b"A")
        time.sleep(0.05)


def endless_redirects(request: Handler) -> None:
    request.head(302, 0, Location=f"{request.path}x")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (other_bytes, "sends another file: its SHA-256 differs"),
        (endless, "sends another file: its SHA-256 differs"),
        (login_page, "bytes early"),
        (unrequested_range, "does not send the whole file but 206"),
        (not_http, "the answer is broken"),
        (no_answer, "no answer from|timed out"),
        (slow_header, "no answer from"),
        (slow_body, r"only \d+ bytes arrived"),
        (endless_redirects, "redirect"),
        *((lambda request, code=code: request.head(code, 0), f"HTTP Error {code}") for code in (403, 404, 500, 503)),
    ],
)
def test_servers_that_fail(
    server: Server, tmp_path: Path, answer: Callable[[Handler], None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = answer
    if answer in (no_answer, slow_header, slow_body):
        monkeypatch.setattr(download, "TIMEOUT", 1.0)
    with pytest.raises(
        InputError, match=f"{NAME} is not in '{tmp_path}' and cannot be downloaded: .*{reason}"
    ) as error:
        fetch(remote(server), tmp_path, NAME)
    assert "--data-dir" in error.value.hint and server.url in error.value.hint
    assert "\n" not in error.value.message
    assert not (tmp_path / NAME).exists() and sum(p.stat().st_size for p in tmp_path.rglob("*.part")) <= len(CONTENT)


def test_other_schemes_are_refused(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(InputError, match=f"{server.url}file.gz is not https"):
        fetch(remote(server), tmp_path, NAME)
    assert server.ranges == [] and files(tmp_path) == []


@pytest.mark.parametrize("scheme", ["http", "ftp", "file"])
def test_unsafe_redirects_are_refused(server: Server, tmp_path: Path, scheme: str) -> None:
    """The server's own URL stands for https, and another port of this machine for plain http."""
    other = Server()
    (tmp_path / "bait").write_bytes(CONTENT)
    target = {"http": f"{other.url}file.gz", "ftp": f"ftp{other.url[4:]}", "file": f"file://{tmp_path}/bait"}[scheme]
    server.answer = lambda request: request.head(302, 0, Location=target)
    with pytest.raises(InputError, match=r"is not https|not allowed"):
        fetch(remote(server), tmp_path, NAME)
    assert other.ranges == [] and files(tmp_path) == ["bait"]
    other.shutdown()
    other.server_close()


def test_no_network(tmp_path: Path, server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match="Connection refused"):
        fetch(remote(server), tmp_path, NAME)
    assert files(tmp_path) == []


# --- disks


def test_folder_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "MNIST").write_bytes(b"in the way")
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / NAME}") as error:
        fetch(remote(server), tmp_path, NAME)
    assert "--data-dir" in error.value.hint and server.ranges == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(server: Server, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(StorageError, match="Permission denied"):
        fetch(remote(server), tmp_path, NAME)


@pytest.mark.parametrize("max_bytes", [0, 1, 4096, 150_000, len(CONTENT) - 1])
def test_full_disk(server: Server, tmp_path: Path, max_bytes: int) -> None:
    def fetch_with_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, resource.RLIM_INFINITY))
        try:
            fetch(remote(server), tmp_path, NAME)
        except StorageError as error:
            os._exit(5 if "File too large" in error.message else 1)
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=fetch_with_limit)
    child.start()
    child.join()
    assert child.exitcode == 5
    assert not (tmp_path / NAME).exists()
    fetch(remote(server), tmp_path, NAME)
    assert is_complete(tmp_path)


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_disk_without_locks(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.flock", flock)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # filelock warns about ENOSYS
        fetch(remote(server), tmp_path, NAME)
    assert is_complete(tmp_path)


# --- several processes


def test_one_of_fifty_downloads(server: Server, tmp_path: Path) -> None:
    def fetch_and_check() -> None:
        fetch(remote(server), tmp_path, NAME)
        os._exit(0 if (tmp_path / NAME).read_bytes() == CONTENT else 1)

    def send_slowly(request: Handler) -> None:
        request.head(200, len(CONTENT))
        for start in range(0, len(CONTENT), 30_000):
            request.wfile.write(CONTENT[start : start + 30_000])
            time.sleep(0.02)

    server.answer = send_slowly
    children = [multiprocessing.get_context("fork").Process(target=fetch_and_check) for _ in range(50)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 50
    assert is_complete(tmp_path) and server.ranges == [None]


def test_next_process_tries_again(server: Server, tmp_path: Path) -> None:
    """The first process gets an error. The others must not mistake its leftovers for the file."""
    requests = []

    def fail_first(request: Handler) -> None:
        requests.append(request)
        time.sleep(0.05)
        request.head(503, 0) if len(requests) == 1 else request.send(CONTENT)

    def fetch_or_fail() -> None:
        try:
            fetch(remote(server), tmp_path, NAME)
        except InputError:
            os._exit(3)
        os._exit(0)

    server.answer = fail_first
    children = [multiprocessing.get_context("fork").Process(target=fetch_or_fail) for _ in range(5)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert sorted(str(child.exitcode) for child in children) == ["0"] * 4 + ["3"]
    assert is_complete(tmp_path)


# --- the known files


def test_known_files() -> None:
    urls = [url for hosts in idx.HOSTS.values() for url in hosts]
    entries = [entry for files in idx.FILES.values() for entry in files.values()]
    for file in (cifar.REMOTE, *svhn.FILES.values()):
        urls += file.urls
        entries.append((file.size, file.sha256))
    assert all(url.startswith(download.URL_PREFIXES) for url in urls) and download.URL_PREFIXES == ("https://",)
    assert all(size > 1000 and re.fullmatch(r"[0-9a-f]{64}", sha256) for size, sha256 in entries)
    assert len({sha256 for _, sha256 in entries}) == len(entries) == 15
