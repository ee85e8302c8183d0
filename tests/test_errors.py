import errno

from epigen_utils.errors import DataError, UnreachableError, first_error, first_line, one_line, suggest


def test_data_error_is_a_value_error():
    assert issubclass(DataError, ValueError)
    assert issubclass(UnreachableError, DataError)


def test_the_nearest_name_is_suggested_and_else_names_are_listed():
    assert suggest("airwya", ["airway", "pasilla"]) == "did you mean 'airway'?"
    assert suggest("x", ["b", "a"]) == "known: a, b"
    assert suggest("x", [f"name{i:02d}" for i in range(15)]).endswith("name11 and 3 more")


def test_the_cause_in_a_log_is_its_first_error_without_colours():
    log = "start\n\x1b[31mKeyError: a\x1b[0m\nValueError: b\nend\n\n"
    assert first_error(log) == "KeyError: a"
    assert first_error(log, "WARNING") == "end"
    assert first_error("") == "no output"


def test_what_a_disk_refuses_is_one_line_with_a_repair():
    assert one_line(DataError("a.csv: empty; fill it")) == "a.csv: empty; fill it"
    full = OSError(errno.ENOSPC, "No space left on device", "a.csv")
    assert one_line(full) == "a.csv: No space left on device; free space there, and run this again"
    closed = PermissionError(errno.EROFS, "Read-only file system")
    assert one_line(closed) == "a file: Read-only file system; change its permissions, and run this again"
    assert one_line(FileNotFoundError(errno.ENOENT, "No such file", "a.csv")) == ""


def test_a_message_is_one_line_whatever_names_it_has():
    """Of a file or column with an end of line, or with a code that a terminal obeys."""
    assert str(DataError("a\nb\x1b[31mc\udcff: é")) == "a\\nb\\x1b[31mc\\udcff: é"


def test_an_error_without_a_message_is_its_type():
    assert first_line(ValueError(" one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
