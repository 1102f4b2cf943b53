"""Files and folders appear complete or not at all."""

import errno
import os
import stat
import subprocess
import sys

import filelock
import pytest

from vaezoo.core import atomic
from vaezoo.core.atomic import atomic_dir, atomic_replace, file_lock, fsync, read_file, sha256, write_file
from vaezoo.errors import InputError, StorageError

HOLD_LOCK = """
import sys
from pathlib import Path
from vaezoo.core.atomic import file_lock
with file_lock(Path(sys.argv[1]), "taken"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_folder_appears_when_block_ends(tmp_path):
    with atomic_dir(tmp_path / "deep" / "target") as work:
        (work / "file").write_text("x")
        assert not (tmp_path / "deep" / "target").exists()
    assert (tmp_path / "deep" / "target" / "file").read_text() == "x"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["target"]


def test_failed_block_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), atomic_dir(tmp_path / "target") as work:
        (work / "file").write_text("x")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exchange", [True, False])
def test_replace_keeps_old_folder_meanwhile(tmp_path, monkeypatch, exchange):
    if not exchange:  # as on macOS and Windows
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    target = tmp_path / "target"
    with atomic_dir(target) as work:
        (work / "old").write_text("")
    with pytest.raises(ValueError), atomic_dir(target, replace=True) as work:
        (work / "new").write_text("")
        raise ValueError
    assert [p.name for p in target.iterdir()] == ["old"]
    with atomic_dir(target, replace=True) as work:
        (work / "new").write_text("")
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_existing_folder_is_not_replaced(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").write_text("")
    with pytest.raises(StorageError), atomic_dir(tmp_path / "target") as work:
        (work / "file").write_text("x")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["mine", "target"]


@pytest.mark.parametrize("step", ["rename", "fsync", "replace"])
def test_disk_error_keeps_old_file(tmp_path, monkeypatch, step):
    write_file(tmp_path / "file", b"old")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    if step != "replace":
        with pytest.raises(StorageError, match="No space left"), atomic_dir(tmp_path / "target") as work:
            (work / "file").write_text("x")
    if step != "rename":
        with pytest.raises(StorageError, match="No space left"):
            write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_replace_syncs_before_rename(tmp_path, monkeypatch):
    (tmp_path / "work").write_bytes(b"x")
    calls = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda f: (calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{f}"))), real_fsync(f))
    )
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("renamed"), real_replace(*names)))
    atomic_replace(tmp_path / "work", tmp_path / "file")
    assert calls == ["work", "renamed", tmp_path.name] and [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_permissions_follow_umask(tmp_path):
    before = os.umask(0o022)
    try:
        write_file(tmp_path / "file", b"")
        with atomic_dir(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


def test_fsync_skips_unopenable_folder(tmp_path, monkeypatch):
    """Windows refuses to open a folder."""

    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "open", refuse)
    fsync(tmp_path)
    with pytest.raises(PermissionError):
        fsync(tmp_path / "file")


def test_lock_is_exclusive(tmp_path):
    with file_lock(tmp_path / "lock", "taken"):
        with pytest.raises(StorageError, match="taken"), file_lock(tmp_path / "lock", "taken"):
            pass
        with pytest.raises(StorageError, match="taken"), file_lock(tmp_path / "lock", "taken"):
            pass
    with file_lock(tmp_path / "lock", "taken"):
        pass


def test_killed_process_frees_lock(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(StorageError, match="taken"), file_lock(path, "taken"):
        pass
    holder.kill()
    holder.communicate()
    with file_lock(path, "taken"):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_disk_without_locks_is_accepted(tmp_path, monkeypatch, number):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock, "lock_descriptor", fail)
    with file_lock(tmp_path / "lock", "taken"), file_lock(tmp_path / "lock", "taken"):
        pass


def test_unopenable_lock_is_storage_error(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(StorageError, match="cannot write"), file_lock(tmp_path / "lock", "taken"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
def test_only_regular_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "zeros"):
        with pytest.raises(InputError, match="not a regular file"):
            read_file(tmp_path / name, 1 << 20)


def test_large_limit_costs_no_memory(tmp_path):
    (tmp_path / "file").write_bytes(b"few")
    assert read_file(tmp_path / "file", 1 << 50) == b"few"
    with pytest.raises(InputError, match="3 bytes, more than 2"):
        read_file(tmp_path / "file", 2)


def test_sha256_of_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
