"""The folder in which gunicorn's workers keep their counters."""

import errno
import os
import subprocess
import sys

from prometheus_client.multiprocess import MultiProcessCollector

from bookit.metrics import directory
from bookit.runtime.startup import BASE_DIR


def run(code, **variables):
    """Run code in a separate process, and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(BASE_DIR), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


PREPARE = "from bookit.metrics import directory; directory.prepare(); print(directory.shared)"


def test_a_given_folder_is_created_and_loses_the_counters_of_an_earlier_server(tmp_path):
    folder = tmp_path / "not" / "there"
    assert run(PREPARE, PROMETHEUS_MULTIPROC_DIR=str(folder)) == str(folder)
    assert {path.name for path in folder.iterdir()} == {"counter_main.db", "histogram_main.db"}
    (folder / "counter_7.db").touch()
    (folder / "another program's").touch()
    run(PREPARE, PROMETHEUS_MULTIPROC_DIR=str(folder))
    assert "counter_7.db" not in {path.name for path in folder.iterdir()}
    assert (folder / "another program's").exists()


def test_a_new_folder_is_removed_when_the_server_ends_or_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(directory.atexit, "register", lambda *arguments: None)
    monkeypatch.setattr(directory, "_lock", None)
    folder = directory._created(tmp_path)
    running = directory._lock
    # Another server does not remove the folder of a running server.
    second = directory._created(tmp_path)
    assert folder.exists()
    os.close(running)  # as if the server and its workers had been killed
    third = directory._created(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([second, third])
    # A server removes its own folder when it ends.
    used = run(PREPARE, PROMETHEUS_MULTIPROC_DIR="")
    assert directory.PREFIX in used
    assert not os.path.exists(used)


def test_a_worker_that_ends_does_not_remove_the_folder_of_its_server():
    code = (
        f"{PREPARE}; import os; pid = os.fork();"
        "pid or exit();"
        "os.waitpid(pid, 0); print(os.path.exists(directory.shared))"
    )
    assert run(code, PROMETHEUS_MULTIPROC_DIR="").splitlines()[-1] == "True"


def test_a_server_that_replaces_another_server_makes_its_own_folder(tmp_path):
    """gunicorn starts the new server with the environment of the old server."""
    old = tmp_path / f"{directory.PREFIX}old"
    old.mkdir()
    (old / "counter_worker0.db").touch()
    new = run(PREPARE, PROMETHEUS_MULTIPROC_DIR=str(old))
    assert directory.PREFIX in new
    assert new != str(old)
    assert (old / "counter_worker0.db").exists()


def test_disk_space_is_reserved_before_a_file_is_used(tmp_path):
    run(PREPARE, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    for kind, size in directory.SIZES.items():
        found = (tmp_path / f"{kind}_main.db").stat()
        assert found.st_size == size
        assert found.st_blocks * 512 >= size


def test_a_new_worker_never_shows_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    """Another worker may respond to `/metrics` while this worker starts."""
    monkeypatch.setattr(directory, "shared", str(tmp_path))
    monkeypatch.setattr(directory, "_name", "main")
    original = os.posix_fallocate
    sizes = []

    def reserve(descriptor, offset, size):
        assert [*MultiProcessCollector(None, str(tmp_path)).collect()] == []
        original(descriptor, offset, size)
        sizes.append(size)

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    directory.join(2)
    assert sizes == [*directory.SIZES.values()]
    assert {path.name for path in tmp_path.iterdir()} == {
        "counter_worker2.db",
        "histogram_worker2.db",
    }


def test_a_worker_without_disk_space_leaves_no_file_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "shared", str(tmp_path))
    monkeypatch.setattr(directory, "_name", "main")
    monkeypatch.setattr(directory, "recording", True)

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    directory.join(2)
    assert not directory.recording
    assert [*tmp_path.iterdir()] == []


def test_a_server_without_disk_space_starts_without_metrics(tmp_path):
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"{PREPARE}; print(directory.recording)"
    )
    assert run(code, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).split() == ["None", "False"]


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    wrong = tmp_path / "a file"
    wrong.touch()
    code = f"import sys; sys.stderr = sys.stdout; {PREPARE}"
    lines = run(code, PROMETHEUS_MULTIPROC_DIR=str(wrong)).splitlines()
    assert lines[0].startswith("No folder can be used for metrics")
    assert str(wrong) in lines[0]


def test_only_gunicorn_keeps_counters_in_files():
    """A worker of the job queue, which may have the same environment, does not use files."""
    code = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'bookit.settings';"
        "import django; django.setup();"
        "from bookit.metrics import process; process.QUEUED.inc(2);"
        "print(process.REGISTRY.get_sample_value('bookit_http_queued_seconds_total'))"
    )
    assert run(code, PROMETHEUS_MULTIPROC_DIR="/nowhere/at/all") == "2.0"


def test_prepare_does_nothing_once_bookit_metrics_process_is_imported():
    code = (
        "from django import setup; setup(); import bookit.metrics.process;"
        f"{PREPARE}; print(directory.recording)"
    )
    assert run(code, PROMETHEUS_MULTIPROC_DIR="").split() == ["None", "True"]
