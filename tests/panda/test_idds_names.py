import re
import subprocess

import pytest

from scheduler.panda.grid_names import (
    NativeId,
    Yield,
    family_of,
    internal_id,
    new_archive_name,
    new_workflow_name,
    with_yield,
    without_yield,
    work_name,
    workflow_pattern,
)
from scheduler.runners.panda_places import in_one_line


@pytest.mark.parametrize(
    "native_id", [NativeId(4, 9), NativeId(4, 9, Yield(3)), NativeId(4, 9, Yield(3, is_silent=True))]
)
def test_that_a_native_id_is_read_as_it_was_written(native_id):
    assert NativeId.parse(str(native_id)) == native_id


def test_that_a_native_id_is_the_request_and_the_transform():
    assert str(NativeId(12, 34)) == "12.34"
    assert str(NativeId(12, 34, Yield(2))) == "12.34/2"


@pytest.mark.parametrize("text", ["", "12", "12.", "a.b", "12.34.56", "12.34/", "12.34/x", " 12.34"])
def test_that_what_another_runner_wrote_is_no_native_id(text):
    assert NativeId.parse(text) is None


def test_that_a_label_is_the_name_of_its_work():
    assert work_name(None, "ab12-0-sim-None") == "ab12-0-sim-None"
    assert work_name("user.alice.exp", "ab12-0-sim-None") == "user.alice.exp.ab12-0-sim-None"


@pytest.mark.parametrize("label", ["ab12-0-sim-a b", "ab12-0-sim-$(rm)", "ab12-0-sim-x='1'", "ab12-" + "x" * 300])
def test_that_any_label_makes_a_short_word_for_a_shell(label):
    name = work_name("user.alice", label)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,150}", name)
    assert name == work_name("user.alice", label)


def test_that_labels_that_look_alike_have_different_names():
    assert work_name(None, "a b") != work_name(None, "a_b")
    assert work_name(None, "a b") != work_name(None, "a$b")
    assert work_name(None, "x" * 300) != work_name(None, "x" * 301)


def test_that_what_makes_a_work_complete_is_found_in_the_name_again():
    for yields in (Yield(5), Yield(5, is_silent=True), Yield()):
        assert without_yield(with_yield("user.alice.ab12-0-sim", yields)) == ("user.alice.ab12-0-sim", yields)
    assert without_yield("my.slices") == ("my.slices", Yield())


def test_that_the_labels_of_a_run_are_one_family():
    assert family_of("ab12-0-sim-None") == family_of("ab12-7-ana-k_v.retry2") == "ab12"
    assert family_of("alone") == "alone"


def test_that_no_two_workflows_have_the_same_name_and_the_pattern_finds_them():
    names = {new_workflow_name("user.alice", "ab12") for _ in range(50)}
    assert len(names) == 50
    pattern = re.escape(workflow_pattern("user.alice", "ab12")).replace(r"\*", ".*")
    assert all(re.fullmatch(pattern, name) for name in names)
    assert not re.fullmatch(pattern, new_workflow_name("user.alice", "ab123"))


def test_that_an_archive_has_a_new_name_and_the_limit_of_sources():
    assert new_archive_name() != new_archive_name()
    assert re.fullmatch(r"sources\.[0-9a-f-]{36}\.tar\.gz", new_archive_name())


@pytest.mark.parametrize(
    ("init_env", "line"),
    [
        ("", ""),
        (" \n", ""),
        ("source a", "source a; "),
        ("source a; export X=1", "source a; export X=1; "),
        ("source a; env; ", "source a; env; "),
    ],
)
def test_that_init_env_ends_with_a_semicolon(init_env, line):
    assert in_one_line(init_env) == line


@pytest.mark.parametrize(
    "init_env",
    [
        "A=1\nB=2\necho $A$B",
        'if true; then\n  echo "x; y"\nfi',
        "case a in a) echo one;; *) echo two;; esac",
        "echo 'a;b'",
    ],
)
def test_that_lines_that_would_be_torn_apart_mean_the_same_in_one(init_env):
    line = in_one_line(init_env)
    assert "\n" not in line
    assert line.endswith("; ")
    torn = "; ".join(line.split(";")[:-1]) + "; "  # as the client package does it

    def printed(text):
        return subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout

    assert printed(torn) == printed(init_env)


def test_that_works_refer_to_each_other_by_a_short_id_that_is_always_the_same():
    assert internal_id("user.alice.ab12-0-sim") == internal_id("user.alice.ab12-0-sim")
    assert len(internal_id("user.alice.ab12-0-sim")) == 16  # the column of iDDS has room for 20
    assert internal_id("user.alice.ab12-0-sim") != internal_id("user.alice.ab12-1-sim")
