"""Lines are read in bounded memory, whatever a file holds."""

import gzip
import os
import tracemalloc

import pytest

from convostore.operations.line_source import Line, LineSource, in_thread


async def all_lines(path, **options):
    lines = []
    with LineSource(path, **options) as source:
        while portion := await source.portion():
            lines += portion
    return lines


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
async def test_lines_are_numbered_and_empty_ones_passed_over(tmp_path, pack):
    file = tmp_path / "lines"
    file.write_bytes(pack(b"\xef\xbb\xbfone\n\n  \r\ntwo\r\nthree"))
    assert [(line.number, line.text.strip()) for line in await all_lines(file)] == [
        (1, b"one"),
        (4, b"two"),
        (5, b"three"),
    ]


async def test_an_empty_file_has_no_lines(tmp_path):
    file = tmp_path / "empty"
    file.touch()
    assert await all_lines(file) == []


async def test_a_line_that_is_too_long_is_a_problem_and_the_next_one_is_read(tmp_path):
    file = tmp_path / "long"
    file.write_bytes(b"a" * 100 + b"\n" + b"b" * 99 + b"\n" + b"c" * 5000)
    lines = await all_lines(file, max_line_bytes=100)
    assert [(line.number, line.problem) for line in lines] == [
        (1, "longer than 100 bytes"),
        (2, None),
        (3, "longer than 100 bytes"),
    ]


async def test_a_compressed_endless_line_takes_no_more_memory_than_a_line_may(tmp_path):
    file = tmp_path / "bomb.gz"
    with gzip.open(file, "wb", 1) as stream:
        for _ in range(100):
            stream.write(b"x" * 1_000_000)
    tracemalloc.start()
    try:
        lines = await all_lines(file, max_line_bytes=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()
    assert lines == [Line(1, b"", "longer than 1000000 bytes")]


async def test_compressed_data_that_ends_early_is_a_problem_behind_the_last_whole_line(tmp_path):
    file = tmp_path / "cut.gz"
    file.write_bytes(gzip.compress(b"one\ntwo\n")[:-9])
    lines = await all_lines(file)
    assert lines[-1].problem == "the compressed data is damaged or ends early"
    assert [line.text for line in lines[:-1]] in ([], [b"one\n", b"two\n"])


async def test_the_position_tells_how_much_of_the_file_was_read(tmp_path):
    file = tmp_path / "lines.gz"
    file.write_bytes(gzip.compress(os.urandom(100_000).hex().encode() + b"\n", 1))
    with LineSource(file) as source:
        assert (source.position, source.size) == (0, file.stat().st_size)
        while await source.portion():
            pass
        assert source.position == source.size


async def test_an_error_in_the_thread_is_raised_where_it_is_awaited():
    def fail():
        raise LookupError("gone")

    with pytest.raises(LookupError):
        await in_thread(fail)
