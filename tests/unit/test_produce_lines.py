"""Lines of text as records: what is typed is what is sent, and what could be meant in two ways is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.admin.lines import BadLine, LineFormat, Outgoing, lines_of, named_header
from streams.errors import MillraceError


def test_key_and_value_are_parted_by_the_first_separator() -> None:
    assert LineFormat().read(b"user-1:a:b", 1) == Outgoing(b"user-1", b"a:b")
    assert LineFormat(separator=b"\t").read(b'{"k":1}\t{"v":2}', 1) == Outgoing(b'{"k":1}', b'{"v":2}')


@given(st.binary(), st.binary())
def test_what_was_joined_is_parted_again(key: bytes, value: bytes) -> None:
    separator = b"|=|"
    if separator in key + separator[:2]:
        return
    assert LineFormat(separator=separator).read(key + separator + value, 1) == Outgoing(key, value)


def test_a_key_for_all_leaves_lines_whole() -> None:
    assert LineFormat(keyed=False, key=b"user-1").read(b'{"a":1}', 1) == Outgoing(b"user-1", b'{"a":1}')


@pytest.mark.parametrize("line", [b'{"orderId":1}', b'["a:b"]', b'"a:b"'])
def test_json_without_a_key_is_never_cut_at_its_colon(line: bytes) -> None:
    with pytest.raises(BadLine, match=r"line 7 begins like JSON.*--key.*--no-key"):
        LineFormat().read(line, 7)


def test_a_line_without_separator_is_refused_by_its_number() -> None:
    with pytest.raises(BadLine, match="line 3 has no ':'"):
        LineFormat().read(b"alone", 3)


def test_headers_of_a_line_come_after_those_of_all() -> None:
    lines = LineFormat(headers=(("a", b"1"),), headed=True)
    assert lines.read(b"b:2,c:x:y\tk:v", 1) == Outgoing(b"k", b"v", (("a", b"1"), ("b", b"2"), ("c", b"x:y")))
    assert lines.read(b"\tk:v", 1).headers == (("a", b"1"),)
    with pytest.raises(BadLine, match="line 2 has no headers"):
        lines.read(b"k:v", 2)
    with pytest.raises(BadLine, match="header 'b' is not name:value"):
        lines.read(b"b\tk:v", 2)


def test_a_value_that_is_the_null_text_is_a_tombstone() -> None:
    assert LineFormat(null=b"NULL").read(b"k:NULL", 1) == Outgoing(b"k", None)
    assert LineFormat().read(b"k:", 1) == Outgoing(b"k", b"")


def test_ends_of_lines_are_no_part_of_them() -> None:
    assert list(lines_of([b"a:1\n", b"b:2\r\n", b"c:3"])) == [b"a:1", b"b:2", b"c:3"]


def test_a_typed_header_is_name_and_value() -> None:
    assert named_header("source=desk=1") == ("source", b"desk=1")
    for text in ("source", "=desk"):
        with pytest.raises(MillraceError, match="not name=value"):
            named_header(text)
