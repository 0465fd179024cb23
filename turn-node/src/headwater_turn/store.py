"""coturn's user database: the shared secrets and the peers, which it reads while it runs.

coturn looks secrets up at each new allocation and the peers every five seconds. An allocation keeps the
secret it was made with, so that taking a secret away drops nobody.
"""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Final

from headwater_turn.render import Address

# Another process holds the file for milliseconds only.
_BUSY_S: Final = 5.0
_TABLES: Final = (
    "turnusers_lt (realm varchar(127) default '', name varchar(512), hmackey char(128), "
    "primary key (realm,name))",
    "turn_secret (realm varchar(127) default '', value varchar(256), primary key (realm,value))",
    "allowed_peer_ip (realm varchar(127) default '', ip_range varchar(256), primary key (realm,ip_range))",
    "denied_peer_ip (realm varchar(127) default '', ip_range varchar(256), primary key (realm,ip_range))",
    "turn_origin_to_realm (origin varchar(127), realm varchar(127), primary key (origin))",
    "turn_realm_option (realm varchar(127) default '', opt varchar(32), value varchar(128), "
    "primary key (realm,opt))",
    "oauth_key (kid varchar(128), ikm_key varchar(256), timestamp bigint default 0, "
    "lifetime integer default 0, as_rs_alg varchar(64) default '', realm varchar(127) default '', "
    "primary key (kid))",
    "admin_user (name varchar(32), realm varchar(127), password varchar(127), primary key (name))",
)


class Store:
    """One coturn's database file. Methods block for milliseconds; sqlite3.Error where the file is broken."""

    def __init__(self, path: Path, realm: str, *, shared: bool = False) -> None:
        """`shared`: coturn is another user of the agent's group."""
        self._path, self._realm, self._mode = path, realm, 0o660 if shared else 0o600

    def create(self) -> None:
        """The tables that coturn expects, readable by agent and coturn only."""
        self._path.touch(mode=0o600)
        self._path.chmod(self._mode)
        with closing(self._open()) as db, db:
            for table in _TABLES:
                db.execute(f"create table if not exists {table}")

    def set_secrets(self, secrets: Collection[str]) -> None:
        """Exactly these are accepted from now on."""
        self._replace("turn_secret", "value", secrets)

    def set_peers(self, peers: Collection[Address]) -> None:
        """Exactly these are allowed, within five seconds."""
        self._replace("allowed_peer_ip", "ip_range", [str(peer) for peer in peers])

    def _replace(self, table: str, column: str, values: Collection[str]) -> None:
        with closing(self._open()) as db, db:
            db.execute(f"delete from {table} where realm = ?", (self._realm,))
            rows = [(self._realm, value) for value in values]
            db.executemany(f"insert into {table} (realm, {column}) values (?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_BUSY_S)
