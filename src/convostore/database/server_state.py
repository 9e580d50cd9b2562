"""What the directory of local servers says about those that run on it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from convostore.database.process_identity import ProcessIdentity

__all__ = ["DirectoryLayout", "ServerAddresses", "ServerState"]


@dataclass(frozen=True, slots=True)
class ServerAddresses:
    """Where the two servers answer.

    Attributes:
        mongodb_uri: of a replica set with one member.
        redis_url: of database 0.
    """

    mongodb_uri: str
    redis_url: str


@dataclass(frozen=True, slots=True)
class DirectoryLayout:
    """The files of one data directory.

    Attributes:
        directory: the data directory.
    """

    directory: Path

    @property
    def users_lock(self) -> Path:
        """Shared by everyone who uses the servers, for as long as he does."""
        return self.directory / "users.lock"

    @property
    def start_lock(self) -> Path:
        """Exclusive to whoever starts, attaches to or stops the servers."""
        return self.directory / "start.lock"

    @property
    def servers_lock(self) -> Path:
        """Exclusive to the keeper; inherited by its servers, so it is free when all three are gone."""
        return self.directory / "servers.lock"

    @property
    def throw_away_mark(self) -> Path:
        """There if the directory is to be removed at the end."""
        return self.directory / "throw-away"

    @property
    def state(self) -> Path:
        """Describes the running servers."""
        return self.directory / "servers.json"

    @property
    def keeper_log(self) -> Path:
        """What the keeper says when it breaks."""
        return self.directory / "keeper.log"

    @property
    def is_throw_away(self) -> bool:
        """True if the data is not meant to last."""
        return self.throw_away_mark.exists()


@dataclass(frozen=True, slots=True)
class ServerState:
    """The servers of a directory as their keeper wrote them down when both were ready."""

    addresses: ServerAddresses
    keeper: ProcessIdentity
    servers: tuple[ProcessIdentity, ...]

    @classmethod
    def read(cls, layout: DirectoryLayout) -> Self | None:
        """Read the state of a directory; None when there is none that can be read."""
        try:
            stored = json.loads(layout.state.read_text(encoding="utf-8"))
            return cls(
                ServerAddresses(**stored["addresses"]),
                ProcessIdentity(**stored["keeper"]),
                tuple(ProcessIdentity(**server) for server in stored["servers"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, layout: DirectoryLayout) -> None:
        """Write the state so that a reader sees all of it or none."""
        draft = layout.state.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")
        draft.replace(layout.state)

    def is_running(self) -> bool:
        """Tell whether the keeper and both servers are alive."""
        return self.keeper.is_alive() and all(server.is_alive() for server in self.servers)

    def is_failing(self) -> bool:
        """Tell whether the keeper has lost a server, so that it is about to stop the other."""
        return self.keeper.is_alive() and not all(server.is_alive() for server in self.servers)
