"""The folder in which gunicorn's workers keep their counters, so that any worker can add them up.

Only gunicorn prepares the folder. All other processes keep their counters in their own memory.

prometheus_client maps its files into memory. If the disk is full, the kernel kills a process that
writes to a part of such a file for which no disk space is reserved. Therefore BookIt reserves the
space for each file before it uses the file, and a process that gets no space counts nothing.
"""

import atexit
import fcntl
import glob
import logging
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "bookit-metrics-"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder in it
# The space for each kind of file, in bytes. About 100 combinations of view and method occur, and
# each combination needs a dozen entries of a few hundred bytes. prometheus_client enlarges a file
# that is full, without reserving the space.
SIZES = {"counter": 128 * 1024, "histogram": 512 * 1024}

# The name of this process, which its file names contain. gunicorn's workers have numbered places.
# A new worker takes the place of a dead worker and continues its counters, so the number of files
# does not grow when workers die.
_name = "main"
#: The path of the folder that the processes of this server share; None if there is no folder.
shared: str | None = None
#: Whether this process has space for its counters.
recording = True
# The descriptor of the locked folder, if `_created` has made one. It is never closed, so the folder
# stays locked until the processes end.
_lock: int | None = None


def prepare() -> None:
    """Prepare a folder without counters for this server and all its workers.

    If PROMETHEUS_MULTIPROC_DIR is set, use that folder, and remove the counters of an earlier
    server from it. Otherwise, make a new folder, in memory if possible, and remove it when the
    server ends.

    Call this function before `bookit.metrics.process` is imported, because that module decides
    during its import where the counters are kept. After the import, this function does nothing.
    """
    global recording, shared
    if "bookit.metrics.process" in sys.modules:
        return
    given = os.environ.get(VARIABLE)
    if given and Path(given).name.startswith(PREFIX):
        given = None  # The folder belongs to the server that this server replaces (signal USR2).
    memory = [SHARED_MEMORY] if SHARED_MEMORY.is_dir() else []
    problems = []
    for parent in [None] if given else [*memory, Path(tempfile.gettempdir())]:
        try:
            folder = _created(parent) if parent else _emptied(Path(str(given)))
            os.environ[VARIABLE] = shared = str(folder)
            _reserve()
            return
        except OSError as error:
            problems.append(str(error))
    shared, recording = None, False
    logger.error("No folder can be used for metrics, so there are none: %s", "; ".join(problems))


def name() -> str:
    """Return the name of this process, as its file names contain it."""
    return _name


def join(place: int | None) -> None:
    """Give this worker its own counters. Call this function after the fork.

    Args:
        place: a number that no other living worker of this server has. If `place` is None, the
            file names contain the process id instead.
    """
    global _name, recording
    _name = str(os.getpid()) if place is None else f"worker{place}"
    if shared:
        try:
            _reserve()
        except OSError as error:
            recording = False
            logger.error("There is no space for this worker's metrics: %s", error)


def leave(place: int | None, pid: int) -> None:
    """Remove the gauges of a worker that has ended, but not its counters, which are totals.

    BookIt's own metrics of web processes include no gauges so far.
    """
    if shared:
        # Imported here, because prometheus_client reads PROMETHEUS_MULTIPROC_DIR when it is first
        # imported.
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid if place is None else f"worker{place}", shared)


def _created(parent: Path) -> Path:
    """Make and lock a folder, and return it. Remove the folders of servers that were killed."""
    global _lock
    for old in glob.glob(f"{parent}/{PREFIX}*"):
        # Another server that starts now may remove the same folder first.
        with suppress(FileNotFoundError):
            if os.stat(old).st_uid != os.getuid():
                continue
            handle = os.open(old, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
            except BlockingIOError:
                pass  # The server of this folder is still running.
            finally:
                os.close(handle)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    # Workers inherit the lock, so the folder is locked until the last worker has ended.
    _lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(_lock, fcntl.LOCK_EX)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # Workers inherit this exit handler, but must not remove the folder.
        shutil.rmtree(folder, ignore_errors=True)


def _emptied(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.db"):
        old.unlink()
    return folder


def _reserve() -> None:
    """Reserve disk space for the files of this process, which may exist already.

    A file gets its name only when it has its space, because any process may read the folder at any
    time, and prometheus_client cannot read an empty file.

    Raises:
        OSError: there is not enough space.
    """
    for kind, size in SIZES.items():
        path = Path(str(shared), f"{kind}_{_name}.db")
        if path.exists():
            continue
        unfinished = path.with_suffix(".new")
        try:
            with unfinished.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
