"""The two shell files that users source."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell), reason=f"{shell} is not installed"))
    for shell in ("bash", "zsh")
]


def source(shell, script, then, **environment):
    """What a shell says that sources a script and goes on."""
    command = f". '{script}'; echo \"status $?\"; {then}"
    variables = {"PATH": "/usr/bin:/bin", "HOME": "/home/alice", **environment}
    return subprocess.run(
        [shell, "-c", command], env=variables, cwd="/", capture_output=True, text=True, check=True, timeout=30
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_that_setup_activates_the_environment_beside_it(shell, tmp_path):
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("export VIRTUAL_ENV=here\n")
    script = shutil.copy(ROOT / "setup.sh", tmp_path)

    said = source(shell, script, 'echo "environment $VIRTUAL_ENV"')

    assert said.stdout.splitlines() == ["status 0", "environment here"]


@pytest.mark.parametrize("shell", SHELLS)
def test_that_setup_without_an_environment_says_what_to_do_and_keeps_the_shell(shell, tmp_path):
    script = shutil.copy(ROOT / "setup.sh", tmp_path)

    said = source(shell, script, "echo alive")

    assert said.stdout.splitlines() == ["status 1", "alive"]
    assert f"make -C {tmp_path} install" in said.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_that_the_panda_settings_are_complete_and_keep_what_the_user_chose(shell):
    said = source(shell, ROOT / "setup_panda_bnl.sh", "env", PANDA_CONFIG_ROOT="/somewhere/mine")

    settings = dict(line.partition("=")[::2] for line in said.stdout.splitlines())
    assert settings["PANDA_URL_SSL"].endswith("/server/panda")
    assert settings["PANDACACHE_URL"] == settings["PANDA_URL"] == settings["PANDA_URL_SSL"]
    assert settings["PANDA_AUTH"] == "oidc"
    assert settings["PANDA_CONFIG_ROOT"] == "/somewhere/mine"
    assert {"PANDA_AUTH_VO", "PANDAMON_URL", "PANDA_BEHIND_REAL_LB", "PANDA_VERIFY_HOST"} <= settings.keys()


@pytest.mark.parametrize("shell", SHELLS)
def test_that_a_panda_url_of_the_wrong_form_is_named(shell):
    said = source(shell, ROOT / "setup_panda_bnl.sh", "echo alive", PANDA_URL_SSL="https://panda.example.org")

    assert said.stdout.splitlines() == ["status 1", "alive"]
    assert "PANDA_URL_SSL=https://panda.example.org" in said.stderr
