import io
import logging
import os
import tarfile

import pytest

from scheduler.errors import ShippingError
from scheduler.panda import sandbox
from scheduler.panda.sandbox import Packer, unpack
from scheduler.panda.selection import select_files


def make_program(root):
    (root / "pkg").mkdir(parents=True)
    (root / "prog.py").write_text("x = 1\n")
    (root / "pkg" / "data.bin").write_bytes(os.urandom(10_000))
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o750)
    return root


def test_that_what_was_packed_comes_out_again(tmp_path):
    root = make_program(tmp_path / "src")
    tarball = Packer(tmp_path / "packed").pack(select_files(root))
    unpack(tarball.path, tmp_path / "out")
    for name in ("prog.py", "pkg/data.bin", "run.sh"):
        assert (tmp_path / "out" / name).read_bytes() == (root / name).read_bytes()
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o100
    assert not (tmp_path / "out" / "prog.py").stat().st_mode & 0o100


def test_that_the_same_content_gives_the_same_bytes_wherever_and_whenever_it_lies(tmp_path):
    root = make_program(tmp_path / "src")
    copy = tmp_path / "copy"
    unpack(Packer(tmp_path / "one").pack(select_files(root)).path, copy)
    os.utime(copy / "prog.py", (1, 1))
    (copy / "pkg" / "data.bin").chmod(0o600)
    first = Packer(tmp_path / "one").pack(select_files(root))
    second = Packer(tmp_path / "two").pack(select_files(copy))
    assert first.digest == second.digest
    assert first.path.read_bytes() == second.path.read_bytes()


def test_that_other_content_names_or_modes_give_another_digest(tmp_path):
    root = make_program(tmp_path / "src")
    packer = Packer(tmp_path / "packed")
    digests = {packer.pack(select_files(root)).digest}
    (root / "prog.py").write_text("x = 2\n")
    digests.add(packer.pack(select_files(root)).digest)
    (root / "prog.py").rename(root / "main.py")
    digests.add(packer.pack(select_files(root)).digest)
    (root / "main.py").chmod(0o755)
    digests.add(packer.pack(select_files(root)).digest)
    assert len(digests) == 4


def test_that_untouched_files_are_packed_once(tmp_path, caplog):
    root = make_program(tmp_path / "src")
    packer = Packer(tmp_path / "packed")
    with caplog.at_level(logging.INFO):
        first, second = (packer.pack(select_files(root)) for _ in range(2))
    assert first == second
    assert len([each for each in caplog.records if "packed 3 files" in each.getMessage()]) == 1


def test_that_a_tarball_that_somebody_removed_is_made_again(tmp_path):
    root = make_program(tmp_path / "src")
    packer = Packer(tmp_path / "packed")
    packer.pack(select_files(root)).path.unlink()
    assert packer.pack(select_files(root)).path.exists()


def test_that_a_file_that_vanishes_before_it_is_packed_is_named_and_leaves_no_rubbish(tmp_path):
    root = make_program(tmp_path / "src")
    selection = select_files(root)
    (root / "pkg" / "data.bin").unlink()
    with pytest.raises(ShippingError, match=r"data\.bin"):
        Packer(tmp_path / "packed").pack(selection)
    assert list((tmp_path / "packed").iterdir()) == []


def test_that_a_file_that_shrinks_before_it_is_packed_is_named(tmp_path):
    root = make_program(tmp_path / "src")
    selection = select_files(root)
    os.truncate(root / "pkg" / "data.bin", 10)
    with pytest.raises(ShippingError, match=r"data\.bin.*exclude_source_files"):
        Packer(tmp_path / "packed").pack(selection)


def test_that_slow_packing_says_how_far_it_is(tmp_path, caplog, monkeypatch):
    root = make_program(tmp_path / "src")
    monkeypatch.setattr(sandbox, "_QUIET_S", 0.0)
    with caplog.at_level(logging.INFO):
        Packer(tmp_path / "packed").pack(select_files(root))
    assert any("packing the source files" in each.getMessage() for each in caplog.records)


def archive_with(path, member, content=b""):
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member, io.BytesIO(content))
    return path


def test_that_a_member_that_leads_outside_is_refused(tmp_path):
    escape = tarfile.TarInfo("../escaped.txt")
    with pytest.raises(ShippingError, match="escaped"):
        unpack(archive_with(tmp_path / "bad.tar.gz", escape), tmp_path / "out" / "deep")
    assert not (tmp_path / "out" / "escaped.txt").exists()


def test_that_a_damaged_archive_is_refused_by_name(tmp_path):
    tarball = Packer(tmp_path / "packed").pack(select_files(make_program(tmp_path / "src")))
    tarball.path.write_bytes(tarball.path.read_bytes()[:-500])
    with pytest.raises(ShippingError, match=tarball.path.name):
        unpack(tarball.path, tmp_path / "out")
