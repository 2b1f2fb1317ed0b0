import pytest

from scheduler.core.names import check_dataset_name, did_you_mean, scope_of
from scheduler.errors import ConfigurationError


@pytest.mark.parametrize(
    "name",
    ["user.alice.my_experiment.simreco.eta_points_0.1plusparticles_piplus.trial_3", "mc.x", "a", "user.alice.x/"],
)
def test_that_names_rucio_takes_are_taken(name):
    check_dataset_name(name)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "cannot be empty"),
        ("user.alice.pi+", r"'\+'"),
        ("user.alice.my set", "' '"),
        ("user.alice.é", "'é'"),
        ("../x", "must begin with"),
        ("user.alice." + "x" * 250, "261 characters; at most 250"),
        ("user.alice_of_the_very_long_name.x", "at most 25"),
        ("averyveryverylongprojectname.x", "at most 25"),
    ],
)
def test_that_names_rucio_refuses_are_refused_with_the_reason(name, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        check_dataset_name(name)


@pytest.mark.parametrize(
    ("name", "scope"),
    [("user.alice.x.y", "user.alice"), ("group.phys.x", "group.phys"), ("mc24.x.y", "mc24"), ("a", "a")],
)
def test_that_the_scope_is_the_beginning_of_the_name(name, scope):
    assert scope_of(name) == scope


def test_that_a_suggestion_names_what_is_near_and_keeps_silent_otherwise():
    known = ["user.alice.simreco", "user.alice.ana"]
    assert did_you_mean("user.alice.simrec", known) == "; did you mean 'user.alice.simreco' or 'user.alice.ana'?"
    assert not did_you_mean("zzz", known)
