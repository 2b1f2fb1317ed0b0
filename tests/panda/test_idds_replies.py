"""Replies as the real iDDS 2.6.21 sent them (shortened to what matters), and what we read out of them."""

import json

import pytest

from scheduler.errors import RunnerUnavailableError
from scheduler.panda.grid_replies import (
    Result,
    Transform,
    TransformStatus,
    request_ids_in,
    result_of,
    results_in,
    transforms_in,
    user_in,
)


def enumeration(number):
    """A state as iDDS writes it."""
    return {
        "class": "TransformStatus",
        "module": "idds.common.constants",
        "attributes": {"_value_": number, "_name_": "Any", "__objclass__": None, "_sort_order_": number},
    }


def row(transform_id, status, *, task=None, name="user.alice.t.ab12-0-sim-None"):
    return {
        "request_id": 4,
        "name": "user.alice.t.ab12.20261123165832.aa496206",
        "username": "alice",
        "workload_id": None,
        "status": {"class": "RequestStatus", "attributes": {"_value_": 2}},
        "transform_id": transform_id,
        "transform_name": name,
        "transform_workload_id": task,
        "transform_status": status,
    }


def body(ret, **changes):
    return {"ret": ret, "name": "f", "key": "f", "internal_id": "1a", "type": "iwork"} | (
        {"request_id": 4, "transform_id": 9} | changes
    )


def test_that_a_row_is_a_transform_with_its_task():
    assert transforms_in([row(9, enumeration(2), task=1011)]) == [
        Transform(9, "user.alice.t.ab12-0-sim-None", TransformStatus.TRANSFORMING, 1011)
    ]


def test_that_a_transform_without_a_task_has_none():
    (transform,) = transforms_in([row(9, enumeration(0))])
    assert transform.task_id is None
    assert transform.status is TransformStatus.NEW


@pytest.mark.parametrize("status", [3, "3", enumeration(3)])
def test_that_a_state_may_be_a_number_or_an_enumeration(status):
    (transform,) = transforms_in([row(9, status)])
    assert transform.status is TransformStatus.FINISHED


def test_that_a_request_without_works_has_no_transforms():
    assert transforms_in([row(None, None)]) == []


def test_that_a_transform_with_two_datasets_comes_once():
    assert [each.id for each in transforms_in([row(9, 2), row(9, 2), row(10, 2)])] == [9, 10]


@pytest.mark.parametrize("reply", [None, "Bad gateway", {"a": 1}, [{"transform_id": 3}], [row(9, 99)], [row(9, "x")]])
def test_that_an_answer_that_is_no_transforms_is_no_news(reply):
    with pytest.raises(RunnerUnavailableError, match="something else than the details of a request"):
        transforms_in(reply)


@pytest.mark.parametrize(
    ("status", "is_over"),
    [
        (TransformStatus.NEW, False),
        (TransformStatus.TRANSFORMING, False),
        (TransformStatus.SUSPENDED, False),
        (TransformStatus.CANCELLING, False),
        (TransformStatus.TERMINATING, False),
        (TransformStatus.FINISHED, True),
        (TransformStatus.SUB_FINISHED, True),
        (TransformStatus.FAILED, True),
        (TransformStatus.CANCELLED, True),
        (TransformStatus.EXPIRED, True),
    ],
)
def test_that_only_final_states_are_over(status, is_over):
    assert status.is_over is is_over


def test_that_a_returned_value_is_a_result():
    published = json.dumps(body([True, {"y": 9}, None, {"start_time": "2026-11-23 16:58:34"}]))
    assert result_of(published) == Result(4, 9, {"y": 9}, None)


def test_that_the_text_of_an_exception_is_kept():
    assert result_of(body([False, None, "no solution at 2", {}])) == Result(4, 9, None, "no solution at 2")


def test_that_an_exception_without_a_text_is_an_exception():
    assert result_of(body([False, None, None, {}])) == Result(4, 9, None, "")


def test_that_ids_may_be_text():
    assert result_of(body([True, 1, None, {}], request_id="4", transform_id="9")) == Result(4, 9, 1, None)


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xfe",
        "no JSON",
        "[1, 2]",
        "null",
        {"msg_type": "work"},
        body("text"),
        body([True]),
        body([True, 1, None, {}], transform_id=None),
        body([True, 1, None, {}], request_id="x"),
    ],
)
def test_that_what_is_no_result_is_none(message):
    assert result_of(message) is None


def test_that_messages_are_read_in_order_and_strangers_are_left_out():
    messages = [
        {"headers": {"channel": "asyncresult"}, "body": body([True, 1, None, {}])},
        {"headers": {}, "body": {"msg_type": "health"}},
        {"body": body([True, 2, None, {}], transform_id=10)},
        "nonsense",
    ]
    assert results_in(messages) == [Result(4, 9, 1, None), Result(4, 10, 2, None)]


@pytest.mark.parametrize("reply", [None, {"error": 1}, "x", 3])
def test_that_an_answer_that_is_no_list_of_messages_is_no_news(reply):
    with pytest.raises(RunnerUnavailableError, match="something else than messages"):
        results_in(reply)


def test_that_requests_found_by_name_come_oldest_first():
    assert request_ids_in({"b": 12, "a": 7}) == [7, 12]
    assert request_ids_in({}) == []


@pytest.mark.parametrize("reply", [None, [1], {"a": "x"}])
def test_that_an_answer_that_is_no_requests_is_no_news(reply):
    with pytest.raises(RunnerUnavailableError, match="something else than requests"):
        request_ids_in(reply)


@pytest.mark.parametrize(
    ("reply", "user"),
    [([row(9, 2)], "alice"), (row(9, 2), "alice"), ([], None), ([{"username": None}], None), (3, None)],
)
def test_that_the_user_is_the_one_whom_the_service_knows(reply, user):
    assert user_in(reply) == user
