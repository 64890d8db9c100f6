"""Timelines: writing and reading tables, and the errors of wrong tables."""

import pytest

from action_llm_datasets.timelines import Segment, TimelineError, read_timeline, write_timeline


def test_a_written_timeline_is_read_back(tmp_path):
    timeline = {
        "a.mp4": [Segment(0.0, 2.0333, "hand waving"), Segment(2.0333, 3599.9667, 'kicking, "hard"')],
        "more/b.mp4": [Segment(1 / 3, 7.0, "salute")],
    }
    path = tmp_path / "timeline.csv"
    write_timeline(path, {**timeline, "still.mp4": []})
    assert read_timeline(path) == timeline
    assert path.read_text().splitlines()[:2] == ["file_name,start,end,label", "a.mp4,0.0,2.0333,hand waving"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["timeline.csv"]


def test_a_table_typed_by_hand(tmp_path):
    """Rows in any order, with a byte order mark, spaces and additional columns; times of different videos may overlap."""
    path = tmp_path / "mine.csv"
    path.write_text(
        "label,who,file_name,start,end\nwave,ann,a.mp4, 5 ,6.5\nfall,bob,b.mp4,5,6\nkick,ann,a.mp4,1,5\n",
        encoding="utf-8-sig",
    )
    assert read_timeline(path) == {
        "a.mp4": [Segment(1.0, 5.0, "kick"), Segment(5.0, 6.5, "wave")],
        "b.mp4": [Segment(5.0, 6.0, "fall")],
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.mp4,1,2,wave\na.mp4,x,3,kick", r"line 3: start: expected a number of seconds, found 'x'"),
        ("a.mp4,1,,wave", r"line 2: end: expected a number of seconds, found ''"),
        ("a.mp4,1", r"line 2: label is empty"),
        ("a.mp4,1,inf,wave", r"line 2: end: expected a number of seconds, found 'inf'"),
        ("a.mp4,nan,2,wave", r"line 2: start: expected a number of seconds, found 'nan'"),
        ("a.mp4,-1,2,wave", r"line 2: start: expected at least 0 seconds, found -1\.0"),
        ("a.mp4,2,2,wave", r"line 2: end: expected a time after the start at 2\.0 s, found 2\.0"),
        (",1,2,wave", r"line 2: file_name is empty"),
        ("a.mp4,1,2, ", r"line 2: label is empty"),
        ("a.mp4,1,2,wave,hand", r"line 2: 1 more values than columns"),
        (
            "a.mp4,4,9,wave\nb.mp4,1,2,kick\na.mp4,1,4.5,kick",
            r"line 2: .*'wave' of a\.mp4 starts at 4\.0 s, before 'kick' of line 4 ends at 4\.5 s",
        ),
        ("a.mp4,1,2,wave\na.mp4,1,2,wave", r"line 3: .*'wave' of a\.mp4 starts at 1\.0 s, before 'wave' of line 2"),
    ],
)
def test_errors_name_the_line(tmp_path, rows, message):
    path = tmp_path / "timeline.csv"
    path.write_text(f"file_name,start,end,label\n{rows}\n")
    with pytest.raises(TimelineError, match=rf"timeline\.csv, {message}"):
        read_timeline(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file_name,start,label\n", r"line 1: no column 'end'; found file_name, start, label"),
        (b"", r"line 1: no column 'file_name'; found nothing"),
        (b"file_name,start,end,label\na.mp4,1,2,\xff\n", r"timeline\.csv: expected a CSV table in UTF-8"),
    ],
)
def test_files_that_are_not_timelines(tmp_path, content, message):
    (tmp_path / "timeline.csv").write_bytes(content)
    with pytest.raises(TimelineError, match=message):
        read_timeline(tmp_path / "timeline.csv")
