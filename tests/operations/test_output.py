"""An output file is there only once it is whole."""

import gzip

import pytest

from convostore.operations.output import open_output


def test_a_failure_leaves_what_was_there_before(tmp_path):
    target = tmp_path / "out.jsonl"
    target.write_bytes(b"before")

    def fail():
        with open_output(target) as output:
            output.write(b"half")
            assert target.read_bytes() == b"before"
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_the_file_is_moved_into_its_place_at_the_end(tmp_path):
    target = tmp_path / "out.jsonl"
    with open_output(target) as output:
        output.write(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [target]


def test_the_name_decides_about_compression_and_the_same_content_is_the_same_file(tmp_path):
    for name in ("a.gz", "b.gz"):
        with open_output(tmp_path / name) as output:
            output.write(b"text")
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"text"
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(OSError), open_output(tmp_path) as output:
        output.write(b"x")
