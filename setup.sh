# Activate this project's virtual environment:  source ./setup.sh
#
# To be sourced from bash or zsh. Nothing is installed and the shell is never ended: on trouble it says what to do.

if [ -n "${ZSH_VERSION:-}" ]; then
    eval '_scheduler_setup=${(%):-%x}'
else
    _scheduler_setup=${BASH_SOURCE[0]:-$0}
fi
_scheduler_home=$(CDPATH='' cd -- "$(dirname -- "$_scheduler_setup")" && pwd)

if [ -f "$_scheduler_home/.venv/bin/activate" ]; then
    . "$_scheduler_home/.venv/bin/activate"
    unset _scheduler_setup _scheduler_home
else
    echo "setup.sh: $_scheduler_home/.venv is no virtual environment yet; make it with: make -C $_scheduler_home install" >&2
    unset _scheduler_setup _scheduler_home
    false
fi
