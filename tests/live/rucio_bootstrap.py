"""Run with the server's Python: makes the database of a Rucio server, and adds accounts to it.

::

    RUCIO_CONFIG=/data/server.cfg python rucio_bootstrap.py create RSE /data/storage
    RUCIO_CONFIG=/data/server.cfg python rucio_bootstrap.py account alice PASSWORD RSE QUOTA_IN_BYTES
"""

import sys

from rucio.common.types import InternalAccount, InternalScope
from rucio.core.account import add_account
from rucio.core.account_limit import set_local_account_limit
from rucio.core.identity import add_account_identity, add_identity
from rucio.core.rse import add_protocol, add_rse, add_rse_attribute, get_rse_id
from rucio.core.scope import add_scope
from rucio.db.sqla.constants import AccountType, DatabaseOperationType, IdentityType
from rucio.db.sqla.session import db_session
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account


def create(rse: str, storage: str) -> None:
    """A new database with one storage element, a directory that clients write to themselves."""
    build_database()
    create_base_vo()
    create_root_account()
    with db_session(DatabaseOperationType.WRITE) as session:
        rse_id = add_rse(rse, session=session)
        operations = {"read": 1, "write": 1, "delete": 1}
        protocol = {
            "scheme": "file",
            "hostname": "localhost",
            "port": 0,
            "prefix": storage,
            "impl": "rucio.rse.protocols.posix.Default",
            "domains": {"lan": operations, "wan": operations},
        }
        add_protocol(rse_id, protocol, session=session)
        add_rse_attribute(rse_id, "site", "here", session=session)


def account(name: str, password: str, rse: str, quota: str) -> None:
    """A plain user with a scope of their own; without quota when that is 0."""
    email = f"{name}@example.org"
    with db_session(DatabaseOperationType.WRITE) as session:
        user = InternalAccount(name)
        add_account(user, AccountType.USER, email, session=session)
        add_scope(InternalScope(f"user.{name}"), user, session=session)
        add_identity(name, IdentityType.USERPASS, email, password=password, session=session)
        add_account_identity(name, IdentityType.USERPASS, user, email, default=True, password=password, session=session)
        if int(quota):
            set_local_account_limit(user, get_rse_id(rse, session=session), int(quota), session=session)


if __name__ == "__main__":
    {"create": create, "account": account}[sys.argv[1]](*sys.argv[2:])
