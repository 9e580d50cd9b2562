"""Files of whatever bytes, imported by the command: an exit code and a line, in bounded memory, never a traceback."""

import gzip
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from convostore import MongoSettings
from convostore.cli.main import app
from convostore.operations.line_source import Line, LineSource

SCALE = float(os.environ.get("CONVOSTORE_TEST_SCALE", "1"))
GOOD = json.dumps({"conversation_id": "c", "messages": [{"role": "user", "content": "Hello"}]}).encode()
DEEP = b'{"messages": ' + b"[" * 100_000
FILES: dict[str, bytes] = {
    "empty": b"",
    "not UTF-8": GOOD.replace(b"Hello", b"\xff\xfe\xfa"),
    "UTF-16": GOOD.decode().encode("utf-16"),
    "a lone surrogate": GOOD.replace(b"Hello", b"\\ud800"),
    "NUL": GOOD.replace(b"Hello", b"\\u0000").replace(b'"c"', b'"c\\u0000"'),
    "cut off": GOOD[:-9],
    "gzip cut off": gzip.compress(GOOD * 50)[:-12],
    "gzip damaged": gzip.compress(GOOD)[:12] + b"xxxx" + gzip.compress(GOOD)[16:],
    "gzip in gzip": gzip.compress(gzip.compress(GOOD)),
    "gzip's first bytes only": b"\x1f\x8b",
    "deep": DEEP,
    "deep and whole": DEEP + b"]" * 100_000 + b"}",
    "a huge number": GOOD.replace(b'"Hello"', b"1" * 5000),
    "no object": b'[]\n5\n"x"\nnull\ntrue\n{}',
    "operators": GOOD.replace(b'"Hello"', b'{"$ne": null}').replace(b'"c"', b'{"$gt": ""}'),
    "the same key twice": b'{"messages": [], "messages": 5}',
    "NaN": GOOD.replace(b'"Hello"', b"NaN"),
    "only NUL": b"\0" * 4096,
    "only new lines": b"\n" * 4096,
}


def run(path: Path, where: MongoSettings, *options: str) -> tuple[int, str]:
    """Import a file; return the exit code and what was said."""
    assert where.mongodb_uri is not None
    place = ["--mongodb-uri", where.mongodb_uri.get_secret_value(), "--database", where.database_name]
    ended = CliRunner().invoke(app, ["import", str(path), "-t", "acme", *place, *options])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), repr(ended.exception)
    assert "Traceback" not in ended.output
    return ended.exit_code, ended.output


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("what", FILES)
def test_a_file_of_any_kind_is_told_about(what: str, tmp_path: Path, convostore_settings: MongoSettings) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES[what])
    code, said = run(path, convostore_settings, "--on-error", "skip")
    assert code in (0, 1)
    assert said


@pytest.mark.usefixtures("store")
def test_files_of_random_bytes_end_in_an_exit_code(tmp_path: Path, convostore_settings: MongoSettings) -> None:
    pieces = st.sampled_from([GOOD, b"\n", b"{", b'"', b"\\", b"\x1f\x8b", b"\xff", b"\0", b"[", b"1e999", GOOD[:30]])
    content = st.lists(st.one_of(pieces, st.binary(max_size=8)), max_size=12).map(b"".join)
    path = tmp_path / "file"

    @settings(
        max_examples=round(15 * SCALE),
        derandomize=SCALE <= 1,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(content, st.sampled_from([bytes, gzip.compress]))
    def go(content: bytes, packed: Callable[[bytes], bytes]) -> None:
        path.write_bytes(packed(content))
        assert run(path, convostore_settings, "--on-error", "skip")[0] in (0, 1)

    go()


async def test_a_gzip_bomb_takes_no_memory(tmp_path: Path) -> None:
    """A thousand times as large unpacked as packed: a line longer than allowed is skipped, and the next one is read."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=9) as bomb:
        for _ in range(40):
            bomb.write(b" " * 1_000_000)
        bomb.write(b"\n" + GOOD)
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with LineSource(path, max_line_bytes=1_000_000) as source:
            lines: list[Line] = []
            while portion := await source.portion():
                lines += portion
        highest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [line.problem for line in lines] == ["longer than 1000000 bytes", None]
    assert lines[1].text == GOOD
    assert highest < 20_000_000
