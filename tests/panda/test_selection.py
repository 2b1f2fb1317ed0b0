import logging
import os
import socket
import tempfile
from pathlib import Path

import pytest

from scheduler.errors import ConfigurationError, ShippingError
from scheduler.panda.exclusion import parse_exclusions
from scheduler.panda.selection import MAX_BYTES, select_files


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names_in(root, *patterns):
    return [each.name for each in select_files(root, parse_exclusions(patterns)).files]


def test_that_all_files_ship_sorted_by_name(tmp_path):
    make(tmp_path, "b.py", "a/c.py", "a.txt", "a/b/d.dat", ".hidden")
    assert names_in(tmp_path) == [".hidden", "a.txt", "a/b/d.dat", "a/c.py", "b.py"]


def test_that_patterns_ask_entries_of_the_top_and_files_below_but_not_directories_below(tmp_path):
    make(tmp_path, "work/x.py", "src/work/y.py", "src/deep/work", "src/z.py")
    assert names_in(tmp_path, "work") == ["src/work/y.py", "src/z.py"]


def test_that_run_directories_environments_and_git_never_ship(tmp_path):
    make(
        tmp_path,
        "prog.py",
        ".git/config",
        "sub/.git",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        "deep/er/env/pyvenv.cfg",
        "scheduler_runs/a/x",
        "myrun/experiment.db",
        "other/trials/0/log.txt",
        "mine/run.json",
        "pkg/__pycache__/m.cpython-311.pyc",
        "pkg/m.py",
    )
    (tmp_path / "other" / "run.json").write_text('{"run_id": "0123abcd"}')
    assert names_in(tmp_path) == ["mine/run.json", "pkg/m.py", "prog.py"]


def test_that_a_directory_may_ship_although_it_is_a_repository_itself(tmp_path):
    make(tmp_path, ".git/config", "pyvenv.cfg", "prog.py")
    assert names_in(tmp_path) == ["prog.py", "pyvenv.cfg"]


def test_that_one_warning_names_the_python_files_that_an_expression_takes_unexpectedly(tmp_path, caplog):
    make(
        tmp_path, "catalog.py", "pkg/mylog_tools.py", "run.log", "work.py", "do.py", "domain/__init__.py", "docs/a.txt"
    )
    assert names_in(tmp_path, ".*log", "doc*", "work.py") == []
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    listed = record.getMessage().rpartition("shipped: ")[2]
    assert listed == "catalog.py (by '.*log'), do.py (by 'doc*'), domain/ (by 'doc*'), pkg/mylog_tools.py (by '.*log')"


def test_that_there_is_no_warning_when_another_pattern_takes_the_whole_name(tmp_path, caplog):
    make(tmp_path, "catalog.py")
    assert names_in(tmp_path, ".*log", "catalog.py", r".*\.py") == []
    assert not caplog.records


def test_that_links_to_files_ship_the_file(tmp_path):
    make(tmp_path, "elsewhere/data.txt", "src/prog.py")
    (tmp_path / "src" / "data.txt").symlink_to(tmp_path / "elsewhere" / "data.txt")
    (tmp_path / "src" / "again.txt").symlink_to("data.txt")
    selection = select_files(tmp_path / "src")
    assert [each.name for each in selection.files] == ["again.txt", "data.txt", "prog.py"]
    assert selection.files[1].path.read_text() == "elsewhere/data.txt"


def test_that_links_to_directories_outside_are_followed_once(tmp_path):
    make(tmp_path, "elsewhere/a.txt", "elsewhere/deep/b.txt", "src/prog.py")
    (tmp_path / "src" / "one").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "src" / "two").symlink_to(tmp_path / "elsewhere")
    assert names_in(tmp_path / "src") == ["one/a.txt", "one/deep/b.txt", "prog.py"]


def test_that_a_directory_with_a_link_to_it_ships_under_its_own_name(tmp_path):
    make(tmp_path, "real/a.txt")
    (tmp_path / "alias").symlink_to("real")
    (tmp_path / "here").symlink_to(".")
    selection = select_files(tmp_path)
    assert [each.name for each in selection.files] == ["real/a.txt"]
    assert "ships under another name" in str(selection.why_left_out("alias/a.txt"))


def test_that_an_excluded_directory_is_not_shipped_through_its_own_link_name(tmp_path):
    make(tmp_path, "calibrations/a.txt", "b.txt")
    (tmp_path / "calib").symlink_to("calibrations")
    assert names_in(tmp_path, "calibrations", "calib") == ["b.txt"]


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("nowhere", r"link .*/src/link leads to nowhere, which does not exist"),
        ("link", "leads in a circle"),
        ("..", "contains the source directory"),
    ],
)
def test_that_a_link_that_leads_nowhere_or_in_a_circle_is_an_error_that_names_it(tmp_path, target, complaint):
    make(tmp_path, "src/prog.py")
    (tmp_path / "src" / "link").symlink_to(target)
    with pytest.raises(ShippingError, match=complaint):
        select_files(tmp_path / "src")


def test_that_an_excluded_link_may_lead_nowhere(tmp_path):
    make(tmp_path, "prog.py")
    (tmp_path / "link").symlink_to("nowhere")
    assert names_in(tmp_path, "link") == ["prog.py"]


def test_that_files_and_directories_that_cannot_be_read_are_named():
    with tempfile.TemporaryDirectory() as name:  # not below tmp_path, which others may not enter
        root = Path(name)
        root.chmod(0o755)
        make(root, "prog.py", "secret.txt", "closed/x.txt")
        (root / "secret.txt").chmod(0)
        (root / "closed").chmod(0)
        with (
            as_somebody_else(),
            pytest.raises(ShippingError, match=r"cannot read (secret\.txt, closed/|closed/, secret\.txt)"),
        ):
            select_files(root)
        (root / "closed").chmod(0o755)


class as_somebody_else:  # noqa: N801 - reads like a statement
    """Root may read everything: give that up for a moment."""

    def __enter__(self):
        self.user = os.geteuid()
        if self.user == 0:
            os.seteuid(65534)

    def __exit__(self, *_):
        os.seteuid(self.user)


def test_that_sockets_and_pipes_stay_at_home(tmp_path, monkeypatch):
    make(tmp_path, "prog.py")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert names_in(tmp_path) == ["prog.py"]


def test_that_too_many_bytes_are_refused_naming_the_biggest(tmp_path):
    make(tmp_path, "prog.py", "geometry/a", "fields/b")
    os.truncate(tmp_path / "geometry" / "a", MAX_BYTES - 50_000_000)
    os.truncate(tmp_path / "fields" / "b", 60_000_000)
    with pytest.raises(
        ShippingError, match=r"778 MB together, and at most 768 MB .* geometry/ \(720 MB\), fields/ \(57 MB\)"
    ):
        select_files(tmp_path)
    assert names_in(tmp_path, "fields") == ["geometry/a", "prog.py"]


def test_that_a_missing_directory_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        select_files(tmp_path / "nowhere")
