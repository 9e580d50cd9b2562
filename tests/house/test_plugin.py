"""The pytest plugin is found by itself where convostore is installed."""

import subprocess
import sys
from pathlib import Path


def test_pytest_finds_the_fixtures_by_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--fixtures", "-p", "no:cacheprovider", "-p", "no:valkey"]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    for name in ("convostore_servers", "convostore_settings", "convostore_redis_settings", "convostore_store"):
        assert f"\n{name}" in listed
