import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from scheduler.caching.entries import Entry, StepCache

KEY = "ab" + "0" * 62
ENTRY = Entry({"v": 0.1, "pair": [1, None], "text": "µ"}, "run1", 3, "sim", "2026-11-26T12:00:00+00:00")


@pytest.fixture
def cache(tmp_path):
    return StepCache(tmp_path / "cache")


def test_that_nothing_is_made_before_the_first_result(cache):
    assert cache.take(KEY) is None
    assert not cache.directory.exists()


def test_that_an_entry_comes_back_as_it_was_also_for_another_program(cache):
    cache.put(KEY, ENTRY)

    assert StepCache(cache.directory).take(KEY) == ENTRY
    assert [path.relative_to(cache.directory).as_posix() for path in cache.directory.rglob("*.json")] == [
        f"ab/{KEY}.json"
    ]
    assert cache.path_of(KEY).stat().st_mode & 0o044, "others may read it, as far as the umask lets them"


def test_that_the_later_of_two_writers_stays(cache):
    cache.put(KEY, ENTRY)
    cache.put(KEY, Entry({"v": 2}, "run2", 0, "sim", "2026-11-26T12:00:01+00:00"))

    assert cache.take(KEY).run == "run2"


def test_that_writers_and_readers_at_the_same_time_never_see_half_an_entry(cache, caplog):
    entries = [replace(ENTRY, result={"v": [number] * 1000}, trial=number) for number in range(4)]

    def write_and_read(entry):
        for _ in range(50):
            cache.put(KEY, entry)
            assert cache.take(KEY) in entries

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_and_read, entries))
    assert not caplog.records


@pytest.mark.parametrize("kept", [0, 1, 40, -40, -2])
def test_that_a_truncated_entry_is_a_miss_with_a_warning(cache, caplog, kept):
    cache.put(KEY, ENTRY)
    path = cache.path_of(KEY)
    path.write_bytes(path.read_bytes()[:kept])

    assert cache.take(KEY) is None
    assert f"{KEY}.json in the cache cannot be used" in caplog.text

    cache.put(KEY, ENTRY)
    assert cache.take(KEY) == ENTRY


@pytest.mark.parametrize(
    "change", [{"result": {"v": 0.2}}, {"trial": 4}, {"checksum": "0"}, {"format": 2}, {"key": "cd"}, {"more": 1}]
)
def test_that_a_changed_entry_is_a_miss(cache, change):
    cache.put(KEY, ENTRY)
    path = cache.path_of(KEY)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    assert cache.take(KEY) is None


@pytest.mark.parametrize("content", ["[]", "null", "{}", "\0\0\0", '{"checksum": []}'])
def test_that_anything_else_in_its_place_is_a_miss(cache, content):
    cache.path_of(KEY).parent.mkdir(parents=True)
    cache.path_of(KEY).write_text(content)

    assert cache.take(KEY) is None


def test_that_what_a_killed_program_left_is_never_read(cache, caplog):
    """Killed between the write and the rename: the draft is whole or half, and has another name."""
    cache.put(KEY, ENTRY)
    cache.path_of(KEY).rename(cache.path_of(KEY).with_name(f".{KEY}.0123.unfinished"))

    with caplog.at_level(logging.WARNING):
        assert cache.take(KEY) is None
    assert not caplog.records


def test_that_a_failed_write_leaves_nothing(cache, monkeypatch):
    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        cache.put(KEY, ENTRY)

    assert list(cache.directory.rglob("*.*")) == []


@pytest.mark.parametrize("result", [float("nan"), {1, 2}, object()])
def test_that_what_json_cannot_say_is_refused_and_leaves_nothing(cache, result):
    with pytest.raises((ValueError, TypeError)):
        cache.put(KEY, Entry(result, "run1", 0, "sim", ""))

    assert not cache.directory.exists()
