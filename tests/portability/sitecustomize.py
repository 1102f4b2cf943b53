"""Makes a Python process on Linux behave like one on Windows, as far as vaezoo's own code can tell.

Python imports it at start from PYTHONPATH, also in child processes. It removes modules and constants that Windows
lacks. Folders cannot be opened, open or mapped files cannot be moved or removed, and a rename never replaces.
"""

import builtins
import errno
import io
import os
import shutil
import signal
import sys

real_open, real_os_open, real_readlink = builtins.open, os.open, os.readlink


def open_without_proc(file, *args, **kwargs):
    if isinstance(file, str | os.PathLike) and os.fspath(file).startswith("/proc/"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
    return real_open(file, *args, **kwargs)


def open_file_only(path, flags, mode=0o777, *, dir_fd=None):
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return real_os_open(path, flags, mode, dir_fd=dir_fd)


def files_in_use():
    """Returns the paths of the files that this process has open or mapped."""
    paths = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            paths.add(real_readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue  # the descriptor that listed the folder
    with real_open("/proc/self/maps") as file:
        return paths | {fields[5].rstrip("\n") for line in file if len(fields := line.split(maxsplit=5)) == 6}


def refuse_in_use(function):
    def call(path, *args, **kwargs):
        full = os.path.realpath(path)
        if any(used == full or used.startswith(full + os.sep) for used in files_in_use()):
            raise PermissionError(errno.EACCES, "the file is used by another process", path)
        return function(path, *args, **kwargs)

    return call


def rename(src, dst):
    if os.path.lexists(dst):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), src, None, dst)
    real_rename(src, dst)


def replace(src, dst):
    if os.path.isdir(dst) or os.path.realpath(dst) in files_in_use():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), src, None, dst)
    real_replace(src, dst)


real_rename, real_replace = refuse_in_use(os.rename), refuse_in_use(os.replace)
sys.modules["fcntl"] = sys.modules["resource"] = None
del os.O_NONBLOCK, os.sysconf, os.fork, os.getuid, os.geteuid, os.mkfifo, os.killpg, signal.SIGHUP, signal.SIGKILL
builtins.open = io.open = open_without_proc
os.open, os.rename, os.replace = open_file_only, rename, replace
os.unlink, os.remove, os.rmdir = map(refuse_in_use, (os.unlink, os.remove, os.rmdir))
shutil._use_fd_functions = False  # where folders cannot be opened, rmtree works by path
