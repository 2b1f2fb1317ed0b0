"""Logging in with panda-client's own code against an identity provider on this machine."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest
from pandaclient import openidc_utils
from tests.panda.identity_provider import IdentityProvider, id_token

from scheduler.errors import ConfigurationError, RunnerError, RunnerUnavailableError
from scheduler.panda import idds
from scheduler.panda.login import check_login, has_good_token, log_in

GOOD = {
    "PANDA_URL_SSL": "https://panda.example.org/server/panda",
    "PANDA_AUTH": "oidc",
    "PANDA_AUTH_VO": "EIC",
    "PANDA_CONFIG_ROOT": "/home/alice/.panda",
}


@pytest.fixture
def provider():
    made = IdentityProvider()
    yield made
    made.close()


@pytest.fixture
def token_file(tmp_path):
    return tmp_path / ".token"


@pytest.fixture
def oidc(provider, tmp_path):
    url = f"{provider.url}/auth/EIC_auth_config.json"
    quiet = SimpleNamespace(debug=print, info=print, error=print)
    return openidc_utils.OpenIdConnect_Utils(url, token_dir=str(tmp_path), log_stream=quiet)


@pytest.fixture
def waits():
    return []


@pytest.fixture
def said():
    return []


def test_that_a_login_waits_for_the_approval_and_keeps_the_token_for_its_owner_alone(
    oidc, provider, token_file, waits, said
):
    provider.answers = ["authorization_pending", "slow_down", 502, "authorization_pending"]

    log_in(oidc, said.append, sleep=waits.append)

    assert json.loads(token_file.read_text()) == provider.token
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert waits == [5, 5, 10, 10, 10], "slower after slow_down, as RFC 8628 wants it"
    words = "\n".join(said)
    assert f"{provider.url}/verify?user_code=ABCD-EFGH" in words
    assert "ABCD-EFGH" in words
    assert "device-secret" not in words
    assert provider.token["id_token"] not in words
    assert oidc.check_token()[0], "panda-client takes the token for good"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["access_denied"], "declined in the browser"),
        (["authorization_pending", "expired_token"], "not approved in time"),
        (["authorization_pending"] * 99, "not approved in time"),
        (["invalid_client"], "refused the login: invalid_client"),
    ],
)
def test_that_a_login_that_comes_to_nothing_says_why_and_changes_nothing(
    oidc, provider, token_file, waits, said, answers, message
):
    token_file.write_text("the old one")
    provider.answers = answers

    with pytest.raises(RunnerError, match=message):
        log_in(oidc, said.append, sleep=waits.append)

    assert token_file.read_text() == "the old one"


def test_that_a_provider_that_is_away_is_an_outage(oidc, provider, said, waits):
    provider.page = lambda path: "no such page"

    with pytest.raises(RunnerUnavailableError, match="cannot be had"):
        log_in(oidc, said.append, sleep=waits.append)


def keep(token_file, lives_s, **more):
    token_file.write_text(json.dumps({"id_token": id_token(lives_s=lives_s), **more}))


def test_that_a_good_token_is_left_alone(oidc, provider, token_file, said):
    keep(token_file, 7200)
    assert has_good_token(oidc, said.append)
    assert provider.asked == []


def test_that_an_expired_token_is_refreshed_without_asking_anybody(oidc, provider, token_file, said):
    keep(token_file, -10, refresh_token="old")

    assert has_good_token(oidc, said.append)

    assert [form["refresh_token"] for form in provider.asked] == ["old"]
    assert json.loads(token_file.read_text()) == provider.token
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("more", [{}, {"refresh_token": "revoked"}])
def test_that_a_token_that_cannot_be_refreshed_wants_a_new_login(oidc, provider, token_file, said, more):
    provider.refuses_refresh = True
    keep(token_file, -10, **more)
    assert not has_good_token(oidc, said.append)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PANDA_URL_SSL": ""}, "setup_panda_bnl.sh"),
        ({"PANDA_AUTH": "x509"}, "PANDA_AUTH is 'x509'"),
        ({"PANDA_AUTH_VO": ""}, "PANDA_AUTH_VO is not set"),
        ({"PANDA_CONFIG_ROOT": ""}, "in the current directory"),
        ({"OIDC_AUTH_ID_TOKEN": "abc"}, "OIDC_AUTH_ID_TOKEN is set"),
    ],
)
def test_that_a_login_without_effect_is_refused_with_what_to_set(change, message):
    with pytest.raises(ConfigurationError, match=message):
        check_login({**GOOD, **change})
    check_login(GOOD)


# The token of a run --------------------------------------------------------------------------------------------------


@pytest.fixture
def packages(monkeypatch, oidc):
    """The client packages, whose panda-client asks the provider of the test."""
    return SimpleNamespace(panda=SimpleNamespace(_HttpClient=lambda: SimpleNamespace(get_oidc=lambda log: oidc)))


def test_that_a_run_refreshes_its_token_by_itself(packages, provider, token_file):
    keep(token_file, 60, refresh_token="old")
    idds._refresh_token(packages)
    assert json.loads(token_file.read_text()) == provider.token
    assert len(provider.asked) == 1
    idds._refresh_token(packages)
    assert len(provider.asked) == 1


def test_that_a_run_whose_token_is_gone_is_in_an_outage_until_somebody_logs_in(packages, provider, token_file, oidc):
    provider.refuses_refresh = True
    keep(token_file, -10, refresh_token="revoked")
    with pytest.raises(RunnerUnavailableError, match=r"run `scheduler login`.*invalid_grant"):
        idds._refresh_token(packages)

    log_in(oidc, print, sleep=lambda _: None)

    idds._refresh_token(packages)


# The command ---------------------------------------------------------------------------------------------------------


def call(provider, directory, *options, **more):
    """`scheduler login` as a user types it, in an environment of its own."""
    return subprocess.run(
        [sys.executable, "-m", "scheduler.cli", "login", *options],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(directory),
            "PANDA_URL_SSL": f"{provider.url}/server/panda",
            "PANDA_URL": f"{provider.url}/server/panda",
            "PANDA_BEHIND_REAL_LB": "1",
            "PANDA_AUTH": "oidc",
            "PANDA_AUTH_VO": "EIC",
            "PANDA_CONFIG_ROOT": str(directory / "panda"),
            **more,
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_that_the_command_logs_in_once_and_then_finds_the_token_good(provider, tmp_path):
    first = call(provider, tmp_path)
    assert first.returncode == 0, first.stderr
    assert "Open this address in a browser" in first.stdout
    assert "token of Alice Example, from" in first.stdout
    assert "lives for 1 h" in first.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["panda"], "nothing else is written anywhere"

    second = call(provider, tmp_path)
    assert "There is a good token already" in second.stdout
    assert len(provider.asked) == 1


def test_that_a_declined_login_is_an_error_in_one_line(provider, tmp_path):
    provider.answers = ["access_denied"]
    done = call(provider, tmp_path)
    assert done.returncode == 1
    assert done.stderr == "Error: the login was declined in the browser; nothing was changed\n"


def test_that_the_command_says_what_to_set(provider, tmp_path):
    done = call(provider, tmp_path, PANDA_AUTH="x509_no_grid")
    assert done.returncode == 1
    assert "PANDA_AUTH is 'x509_no_grid'" in done.stderr
