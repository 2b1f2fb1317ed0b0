import pytest

from scheduler.errors import ConfigurationError
from scheduler.panda.exclusion import Exclusion, parse_exclusions


@pytest.mark.parametrize(
    ("pattern", "name", "is_taken"),
    [
        ("doc*", "docs", True),
        ("doc*", "do.py", True),
        ("doc*", "mydoc", False),
        (".*log", "catalog.py", True),
        (".*log", "mylog_tools.py", True),
        (".*log", "lo", False),
        ("work", "work", True),
        ("work", "work.py", False),
        ("work", "homework", False),
        (r"(^|/)\.[^/]+", ".hidden", True),
        (r"(^|/)\.[^/]+", "a.b", False),
        ("DTLZ2*", "DTLZ.txt", True),
        (".*json", "x.json.bak", True),
        ("back*", "bac", True),
        ("back*", "ba", False),
        ("a-b", "a-b", True),
        ("a.b", "axb", True),
    ],
)
def test_that_patterns_take_the_names_that_the_existing_client_takes(pattern, name, is_taken):
    assert Exclusion.parse(pattern).takes(name) is is_taken


def test_that_an_invalid_expression_is_refused_by_name_with_the_way_to_write_it():
    with pytest.raises(ConfigurationError, match=r"'\*\.log' is no valid regular expression .* written '\.\*\.log'"):
        parse_exclusions(["work", "*.log"])


@pytest.mark.parametrize("patterns", ["work", None, [1], {"work"}])
def test_that_something_else_than_a_list_of_texts_is_refused(patterns):
    with pytest.raises(ConfigurationError, match="exclude_source_files must be a list of strings"):
        parse_exclusions(patterns)


def test_that_a_match_of_the_whole_name_is_no_match_of_its_beginning_only():
    exclusion = Exclusion.parse(".*log")
    assert exclusion.takes_by_its_beginning("catalog.py")
    assert not exclusion.takes_by_its_beginning("run.log")
    assert not Exclusion.parse("work").takes_by_its_beginning("work")
