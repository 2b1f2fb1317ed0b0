from __future__ import annotations

import base64
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner

from scheduler.cli import main
from scheduler.doctor import Verdict, examine
from scheduler.doctor.credentials import examine_proxy, examine_token
from scheduler.doctor.installation import _ax, _optional, _torch
from scheduler.doctor.machine import examine_machine, file_system_of
from scheduler.doctor.network import Answer, ask_all, fetch
from scheduler.doctor.services import brokers_in, examine_services

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /home nfs4 rw 0 0
tmpfs /home/alice/scratch tmpfs rw 0 0
//nas/share /mnt/with\\040blank cifs rw 0 0
"""


class Service(http.server.BaseHTTPRequestHandler):
    """Answers as the test wants."""

    replies: dict[str, tuple[int, str]] = {}  # noqa: RUF012 - set by the fixture

    def do_GET(self):
        status, body = self.replies.get(self.path, (404, ""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def service():
    """A web server: its address, and the replies to fill in."""
    Service.replies = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Service.replies
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port():
    """A port that nobody listens on while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def token(*, lives_s, **claims):
    def part(facts):
        return base64.urlsafe_b64encode(json.dumps(facts).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'exp': time.time() + lives_s, **claims})}.SIGNATURE"


def by_subject(checks):
    return {check.subject: check for check in checks}


# The command ------------------------------------------------------------------------------------------------------


def run_doctor(*arguments, **environment):
    names = [name for name in os.environ if name.startswith(("PANDA", "IDDS", "RUCIO", "OIDC", "X509"))]
    runner = CliRunner(env={**dict.fromkeys(names), "RUCIO_HOME": "/nowhere", **environment})
    return runner.invoke(main, ["doctor", *arguments], catch_exceptions=False)


def test_that_a_healthy_machine_without_grid_is_all_ok():
    result = run_doctor("--json")

    checks = [json.loads(line) for line in result.output.splitlines()]
    assert result.exit_code == 0
    assert {"python", "ax-platform", "torch", "cores", "memory", "container engines", "directory"} <= {
        check["subject"] for check in checks
    }
    assert all(check["verdict"] != "fail" for check in checks)
    assert next(check["found"] for check in checks if check["subject"] == "configuration") == "RUCIO_HOME=/nowhere"
    assert by_subject(examine_services({}))["configuration"].found.startswith("no grid")


def test_that_the_table_has_a_line_for_everything_and_failures_give_exit_code_1(closed_port):
    result = run_doctor(PANDA_URL_SSL=f"http://127.0.0.1:{closed_port}/server/panda")

    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if "does not answer" in line]
    assert line.split()[:2] == ["fail", "PanDA"]
    assert "check the name, the network and the firewall" in line


def test_that_no_secret_is_shown():
    secret = token(lives_s=7200, name="Alice")
    result = run_doctor(PANDA_AUTH_ID_TOKEN=secret, RUCIO_PASSWORD="sesame", PANDA_URL="http://alice:pw1@127.0.0.1:1/")

    assert "RUCIO_PASSWORD=(set, not shown)" in result.output
    assert "http://***@127.0.0.1:1/" in result.output
    for hidden in (secret, "SIGNATURE", "sesame", "pw1"):
        assert hidden not in result.output


def test_that_the_doctor_loads_neither_ax_nor_torch(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from scheduler.doctor import examine; examine({}, Path.cwd()); "
        "print(sorted({'ax', 'torch', 'botorch', 'idds', 'pandaclient', 'rucio'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)

    assert done.stdout.strip() == "[]"


# Packages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "verdict"), [("1.3.1", "ok"), ("1.4.0", "ok"), ("1.2.9", "fail"), ("1.10.0", "warn"), (None, "fail")]
)
def test_that_the_version_of_ax_is_judged(version, verdict):
    assert _ax(version).verdict is Verdict(verdict)


@pytest.mark.parametrize(
    ("version", "has_cuda", "words"),
    [("2.13.0+cpu", True, "a CPU build"), ("2.13.0", False, "a CPU build"), ("2.13.0", True, "a CUDA build")],
)
def test_that_the_build_of_torch_is_told(version, has_cuda, words):
    assert words in _torch(version, has_cuda=has_cuda).found


def test_that_a_missing_extra_matters_only_when_its_service_is_configured():
    assert _optional("panda-client", None, extra="panda", is_needed=False).verdict is Verdict.OK
    needed = _optional("panda-client", None, extra="panda", is_needed=True)
    assert needed.verdict is Verdict.FAIL
    assert "aid2e-scheduler[panda]" in needed.remedy


# The machine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/run", "ext4"),
        ("/home/alice/run", "nfs4"),
        ("/home/alice/scratch/run", "tmpfs"),
        ("/homes", "ext4"),
        ("/mnt/with blank/run", "cifs"),
    ],
)
def test_that_the_file_system_of_the_longest_mount_point_counts(tmp_path, path, kind):
    assert file_system_of(tmp_path.__class__(path), MOUNTS) == kind


def test_that_a_network_file_system_is_a_warning(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path} lustre rw 0 0\n")
    monkeypatch.setattr("scheduler.doctor.machine._MOUNTS", mounts)

    check = by_subject(examine_machine(tmp_path))["directory"]

    assert check.verdict is Verdict.WARN
    assert "lustre" in check.found
    assert "job_output_dir" in check.remedy


# Services ---------------------------------------------------------------------------------------------------------


def test_that_any_status_is_an_answer_but_that_of_a_gateway_is_none(service):
    url, replies = service
    replies.update({"/good": (200, "hello"), "/forbidden": (403, ""), "/gateway": (503, "")})

    assert fetch(f"{url}/good") == Answer(is_there=True, words="HTTP 200", body="hello")
    assert fetch(f"{url}/forbidden").is_there
    assert not fetch(f"{url}/gateway").is_there


def test_that_a_service_that_talks_nonsense_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\0\1\2 no web server\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        answer = fetch(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()

    assert not answer.is_there
    assert "BadStatusLine" in answer.words


@pytest.mark.parametrize("url", ["panda.example.org:25443", "file:///etc/passwd", "", "http://[broken"])
def test_that_an_address_that_is_none_does_not_answer(url):
    checks = by_subject(examine_services({"IDDS_HOST": url, "RUCIO_HOME": "/nowhere"}) if url else [])

    assert not checks or checks["iDDS"].verdict is Verdict.FAIL


def test_that_a_question_without_an_answer_in_time_is_answered_for():
    hung = threading.Event()

    def hang():
        hung.wait()
        return Answer(is_there=True, words="late")

    answers = ask_all({"slow": hang, "quick": lambda: Answer(is_there=True, words="at once")}, limit_s=0.5)
    hung.set()

    assert answers["quick"].is_there
    assert answers["slow"] == Answer(is_there=False, words="nothing came within 0.5 s")


def test_that_the_brokers_that_idds_tells_are_tried(service, closed_port):
    url, replies = service
    listening = url.removeprefix("http://")
    brokers = {"brokers": f"{listening},127.0.0.1:{closed_port}"}
    replies.update({"/idds": (200, ""), "/idds/metainfo/asyncresult_config": (200, json.dumps(brokers))})

    checks = [c for c in examine_services({"IDDS_HOST": f"{url}/idds", "RUCIO_HOME": "/no"}) if c.subject == "broker"]

    assert [check.verdict for check in checks] == [Verdict.OK, Verdict.WARN]
    assert f"127.0.0.1:{closed_port}" in checks[1].found


@pytest.mark.parametrize("body", ["", "no json", "[]", "{}", '{"brokers": null}', '{"brokers": 3}', '"text"'])
def test_that_nonsense_about_brokers_is_no_broker(body):
    assert brokers_in(body) == ()


def test_that_the_servers_of_the_rucio_configuration_are_tried(service, tmp_path, closed_port):
    url, _ = service
    file = tmp_path / "rucio.cfg"
    file.write_text(
        f"[client]\nrucio_host = {url}\nauth_host = http://127.0.0.1:{closed_port}\npassword = 100%sesame\n"
    )

    checks = by_subject(examine({"RUCIO_CONFIG": str(file)}, tmp_path))

    assert checks["Rucio"].verdict is Verdict.OK
    assert checks["Rucio authentication"].verdict is Verdict.FAIL
    assert str(file) in checks["configuration"].found
    assert not any("sesame" in check.found for check in checks.values())


# Credentials ------------------------------------------------------------------------------------------------------


def token_check(environment, *, is_needed=True):
    return by_subject(examine_token({"PANDA_AUTH": "oidc", **environment}, is_needed=is_needed))["token"]


def test_that_a_good_token_is_told_with_its_owner_and_its_life():
    check = token_check({"PANDA_AUTH_ID_TOKEN": token(lives_s=2 * 3600 + 90, name="Alice Example")})

    assert check.verdict is Verdict.OK
    assert "of Alice Example, from $PANDA_AUTH_ID_TOKEN, lives for 2 h 1 min" in check.found


@pytest.mark.parametrize(
    ("lives_s", "refresh", "verdict", "words"),
    [
        (7200, {}, "ok", "lives for 1 h 59 min"),
        (600, {}, "warn", "lives for 9 min"),
        (600, {"refresh_token": "r"}, "ok", "lives for 9 min"),
        (-7230, {}, "fail", "expired 2 h 0 min ago"),
        (-7230, {"refresh_token": "r"}, "ok", "panda-client will renew it"),
        (30 * 86400 + 60, {}, "ok", "lives for 30 days"),
    ],
)
def test_that_the_token_file_of_panda_client_is_judged(tmp_path, lives_s, refresh, verdict, words):
    (tmp_path / ".token").write_text(json.dumps({"id_token": token(lives_s=lives_s, sub="alice"), **refresh}))

    check = token_check({"PANDA_CONFIG_ROOT": str(tmp_path)})

    assert check.verdict is Verdict(verdict)
    assert words in check.found
    assert (check.verdict is Verdict.OK) == (not check.remedy)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"id_token": "abc"}', '{"id_token": "a.b.c"}', "\0\1"])
def test_that_a_token_file_with_nonsense_fails_with_a_remedy(tmp_path, content):
    (tmp_path / ".token").write_text(content)

    check = token_check({"PANDA_CONFIG_ROOT": str(tmp_path)})

    assert check.verdict is Verdict.FAIL
    assert "scheduler login" in check.remedy


def test_that_no_token_is_a_failure_only_where_one_is_needed(tmp_path):
    environment = {"PANDA_CONFIG_ROOT": str(tmp_path)}

    assert token_check(environment).verdict is Verdict.FAIL
    assert token_check(environment, is_needed=False).verdict is Verdict.OK


def test_that_a_token_that_would_leak_into_job_parameters_is_a_warning():
    checks = by_subject(examine_token({"OIDC_AUTH_ID_TOKEN": token(lives_s=7200)}, is_needed=False))

    assert checks["token in the environment"].verdict is Verdict.WARN


def test_that_a_proxy_is_looked_for_where_it_is_needed(tmp_path):
    proxy = tmp_path / "proxy"
    environment = {"X509_USER_PROXY": str(proxy)}

    (missing,) = examine_proxy(environment, is_needed=True)
    proxy.write_text("certificate")
    proxy.chmod(0o644)
    (open_to_all,) = examine_proxy(environment, is_needed=True)
    proxy.chmod(0o600)
    (good,) = examine_proxy(environment, is_needed=True)

    assert [missing.verdict, open_to_all.verdict, good.verdict] == [Verdict.FAIL, Verdict.WARN, Verdict.OK]
