"""Which PanDA, iDDS and Rucio services are configured, and whether they answer."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from scheduler.doctor.checks import Check, Verdict
from scheduler.doctor.network import LIMIT_S, Answer, ask_all, connect, fetch, is_web_address

_FAMILIES = ("PANDA", "IDDS_", "RUCIO_", "OIDC_", "X509_")
_SECRET = re.compile(r"TOKEN|PASS|SECRET|KEY|CREDENTIAL", re.IGNORECASE)
_USER_IN_URL = re.compile(r"//[^/@]*@")
_GRID_URLS = {
    "PANDA_URL_SSL": "PanDA",
    "PANDA_URL": "PanDA (plain)",
    "PANDACACHE_URL": "PanDA cache",
    "IDDS_HOST": "iDDS",
}
_RUCIO_OPTIONS = {"rucio_host": "Rucio", "auth_host": "Rucio authentication"}
_RUCIO_FILES = ("etc/rucio.cfg",)
_RUCIO_HOME = "/opt/rucio"


def is_grid_configured(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a PanDA or iDDS service."""
    return any(environment.get(name) for name in ("PANDA_URL_SSL", "PANDA_URL", "IDDS_HOST"))


def is_rucio_configured(environment: Mapping[str, str]) -> bool:
    """Whether a Rucio server is named in the environment or in Rucio's configuration file."""
    return bool(_rucio_urls(environment))


def examine_services(environment: Mapping[str, str]) -> Iterator[Check]:
    """The configuration, and one line for each service that it names."""
    yield _configuration(environment)
    urls = {
        **{what: environment[name] for name, what in _GRID_URLS.items() if environment.get(name)},
        **_rucio_urls(environment),
    }
    is_verified = environment.get("PANDA_VERIFY_HOST") != "off"
    answers = ask_all({what: partial(fetch, url, is_verified=is_verified) for what, url in urls.items()})
    for what, url in urls.items():
        yield _judge(what, _without_user(url), answers[what])
    if environment.get("IDDS_HOST") and answers["iDDS"].is_there:
        yield from _brokers(environment["IDDS_HOST"], is_verified=is_verified)


def _configuration(environment: Mapping[str, str]) -> Check:
    names = sorted(name for name in environment if name.startswith(_FAMILIES))
    file = _rucio_file(environment)
    parts = [f"{name}={_shown(name, environment[name])}" for name in names]
    if file is not None:
        parts.append(f"Rucio's file {file}")
    return Check("configuration", Verdict.OK, "; ".join(parts) or "no grid: PanDA jobs run on this machine")


def _shown(name: str, value: str) -> str:
    return "(set, not shown)" if _SECRET.search(name) else _without_user(value)


def _without_user(url: str) -> str:
    return _USER_IN_URL.sub("//***@", url)


def _judge(what: str, url: str, answer: Answer) -> Check:
    if answer.is_there and answer.is_trusted:
        return Check(what, Verdict.OK, f"{url} answers ({answer.words})")
    if answer.is_there:
        remedy = "set X509_CERT_DIR or SSL_CERT_FILE to the certificates of its authority"
        return Check(what, Verdict.WARN, f"{url} answers, but its certificate is not trusted: {answer.words}", remedy)
    remedy = "check the name, the network and the firewall; jobs that run there go on meanwhile"
    return Check(what, Verdict.FAIL, f"{url} does not answer: {answer.words}", remedy)


def _brokers(idds: str, *, is_verified: bool) -> Iterator[Check]:
    """The brokers that bring results: iDDS tells where they are, if it tells anybody."""
    answer = fetch(f"{idds.rstrip('/')}/metainfo/asyncresult_config", is_verified=is_verified)
    brokers = brokers_in(answer.body) if answer.is_there else ()
    if not brokers:
        yield Check("broker", Verdict.OK, "iDDS tells it to clients that have logged in, so it was not tried")
        return
    answers = ask_all({broker: partial(connect, broker) for broker in brokers})
    for broker, each in answers.items():
        if each.is_there:
            yield Check("broker", Verdict.OK, f"{broker} answers")
        else:
            remedy = "results will come over HTTP, minutes later; ask for the firewall to be opened"
            yield Check("broker", Verdict.WARN, f"{broker} does not answer within {LIMIT_S:g} s: {each.words}", remedy)


def brokers_in(body: str) -> tuple[str, ...]:
    """The ``host:port`` of the brokers in what iDDS tells about its result channel; nothing when it tells none."""
    try:
        facts = json.loads(body)
    except ValueError:
        return ()
    facts = facts[0] if isinstance(facts, list) and facts else facts
    brokers = facts.get("brokers") if isinstance(facts, dict) else None
    named = brokers.split(",") if isinstance(brokers, str) else brokers if isinstance(brokers, list) else []
    return tuple(str(broker).strip() for broker in named if str(broker).strip())


def _rucio_urls(environment: Mapping[str, str]) -> dict[str, str]:
    file = _rucio_file(environment)
    if file is None:
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(file)
    except configparser.Error:
        return {}
    urls = {what: parser.get("client", option, fallback="") for option, what in _RUCIO_OPTIONS.items()}
    return {what: url for what, url in urls.items() if is_web_address(url)}


def _rucio_file(environment: Mapping[str, str]) -> Path | None:
    """The configuration file that Rucio's clients would read."""
    named = environment.get("RUCIO_CONFIG")
    home = Path(environment.get("RUCIO_HOME", _RUCIO_HOME))
    candidates = [Path(named)] if named else [home / name for name in _RUCIO_FILES]
    return next((file for file in candidates if file.is_file()), None)
