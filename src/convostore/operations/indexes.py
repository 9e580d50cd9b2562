"""Planning and applying the schema; nothing is ever dropped unasked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convostore.gateways.mongo_administration import MongoAdministration
from convostore.operations.schema import COLLECTIONS, Collection, Index
from convostore.repositories.exceptions import RepositoryError

_CLUSTERED_SINCE = (5, 3)
_IGNORED = frozenset({"v", "ns", "background", "textIndexVersion", "weights"})
_ALREADY_THERE = 48


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the schema asks for and the database does not have.

    Attributes:
        kind: ``collection``, ``index`` to create; ``conflict``, ``plain`` to report.
        collection: which collection.
        name: of the index, or empty.
        wanted: what the schema says.
        present: what the database has, in a conflict.
    """

    kind: str
    collection: str
    name: str
    wanted: dict[str, Any]
    present: dict[str, Any] | None = None

    @property
    def can_be_applied(self) -> bool:
        """Whether ``apply`` does it; a conflict needs a decision."""
        return self.kind in ("collection", "index")

    def __str__(self) -> str:
        subject = f"{self.kind} {self.collection}" + (f".{self.name}" if self.name else "")
        return subject if self.present is None else f"{subject}: wanted {self.wanted}, present {self.present}"


class Schema:
    """Compares the schema with a database, and creates what is missing.

    Args:
        administration: of the database.
        collections: the schema.
    """

    def __init__(self, administration: MongoAdministration, collections: Sequence[Collection] = COLLECTIONS) -> None:
        self._administration = administration
        self._wanted = collections

    async def plan(self) -> list[Step]:
        """Return what is missing or different; empty if all is well."""
        present = await self._administration.collections()
        steps: list[Step] = []
        for collection in self._wanted:
            options = present.get(collection.name)
            if options is None:
                steps.append(Step("collection", collection.name, "", await self._options(collection)))
                steps.extend(_missing(collection, {}))
            else:
                steps.extend(await self._differences(collection, options))
        return steps

    async def _differences(self, collection: Collection, options: dict[str, Any]) -> list[Step]:
        wanted = await self._options(collection)
        lost = [name for name in wanted if name == "clusteredIndex" and name not in options]
        steps = [Step("plain", collection.name, "", {name: wanted[name]}, {}) for name in lost]
        return steps + _missing(collection, await self._administration.indexes(collection.name))

    async def apply(self, steps: Sequence[Step]) -> None:
        """Carry out those steps of a plan that can be; may be repeated, and by several at once."""
        indexes: dict[str, list[dict[str, Any]]] = {}
        for step in steps:
            if step.kind == "collection":
                await self._create(step)
            elif step.kind == "index":
                indexes.setdefault(step.collection, []).append(step.wanted)
        for collection, missing in indexes.items():  # by one command, so that the server reads a collection once
            await self._administration.command({"createIndexes": collection, "indexes": missing})

    async def _create(self, step: Step) -> None:
        try:
            await self._administration.command({"create": step.collection, **step.wanted})
        except RepositoryError as error:
            if getattr(error.original_error, "code", None) != _ALREADY_THERE:
                raise

    async def _options(self, collection: Collection) -> dict[str, Any]:
        # A server without clustered collections keeps the same documents under the same identities.
        options = dict(collection.options)
        if "clusteredIndex" in options and await self._server_version() < _CLUSTERED_SINCE:
            del options["clusteredIndex"]
        return options

    async def _server_version(self) -> tuple[int, ...]:
        info = await self._administration.command({"buildInfo": 1})
        return tuple(info["versionArray"][:2])


def _missing(collection: Collection, present: dict[str, dict[str, Any]]) -> list[Step]:
    steps = []
    for index in collection.indexes:
        wanted, there = index.specification(), present.get(index.name)
        if there is None:
            steps.append(Step("index", collection.name, index.name, wanted))
        elif _comparable(there, index) != _comparable(wanted, index):
            steps.append(Step("conflict", collection.name, index.name, wanted, there))
    return steps


def _comparable(specification: dict[str, Any], index: Index) -> dict[str, Any]:
    """Return what of an index must be the same; the server spells a text index in a way of its own."""
    kept = {name: value for name, value in specification.items() if name not in _IGNORED}
    if any(kind == "text" for _, kind in index.keys):
        kept.pop("key", None)
    elif "key" in kept:
        kept["key"] = list(kept["key"].items())
    return kept
