# Settings of the PanDA service at BNL for panda-client and iDDS:  source setup_panda_bnl.sh
#
# To be sourced from bash or zsh. What is already set is kept, so another service or directory is chosen by exporting
# its variable first. There is no secret here: panda-client asks for a login and keeps the token in PANDA_CONFIG_ROOT.
#
# With these settings PanDAiDDSRunner(service="auto") means the real service. In a shell without them it means the embedded
# site on this machine.

export PANDA_URL_SSL="${PANDA_URL_SSL:-https://pandaserver01.sdcc.bnl.gov:25443/server/panda}"
export PANDA_URL="${PANDA_URL:-$PANDA_URL_SSL}"
export PANDACACHE_URL="${PANDACACHE_URL:-$PANDA_URL_SSL}"
export PANDAMON_URL="${PANDAMON_URL:-https://pandamon01.sdcc.bnl.gov}"

export PANDA_AUTH="${PANDA_AUTH:-oidc}"
export PANDA_AUTH_VO="${PANDA_AUTH_VO:-EIC}"

# The service answers on one address: the client need not choose a host behind it.
export PANDA_BEHIND_REAL_LB="${PANDA_BEHIND_REAL_LB:-1}"
# "off" accepts a server whose certificate this machine cannot verify; export it first if that is what you want.
export PANDA_VERIFY_HOST="${PANDA_VERIFY_HOST:-on}"
# Where panda-client keeps its configuration and the login token: readable by you alone.
export PANDA_CONFIG_ROOT="${PANDA_CONFIG_ROOT:-$HOME/.panda}"

case "$PANDA_URL_SSL" in
    */server/panda) echo "PanDA: $PANDA_URL_SSL as ${PANDA_AUTH_VO} (${PANDA_AUTH}), token in $PANDA_CONFIG_ROOT" ;;
    *) echo "setup_panda_bnl.sh: PANDA_URL_SSL=$PANDA_URL_SSL must end in /server/panda; unset it and source this file again" >&2
       false ;;
esac
