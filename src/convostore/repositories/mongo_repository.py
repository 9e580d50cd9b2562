"""The operations of the base repository, written once for MongoDB."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from convostore.gateways.shared_deadline import by_one_deadline
from convostore.gateways.tenant_collection import Key, Stored
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.identity import join
from convostore.repositories.base_repository import (
    MAX_PAGE_SIZE,
    BaseRepository,
    PaginatedResult,
    Pagination,
)
from convostore.repositories.exceptions import ConcurrencyError, EntityNotFoundError, ValidationError
from convostore.repositories.filters import Filter
from convostore.repositories.keyset import Keyset, KeysetPage, next_page

UPDATE_ATTEMPTS = 20
TOMBSTONE_DAYS = 30
_PURGE = {"$dateAdd": {"startDate": "$$NOW", "unit": "day", "amount": TOMBSTONE_DAYS}}


class _Versioned(Protocol):
    entity_type: ClassVar[str]
    state_fields: ClassVar[tuple[str, ...]]

    @property
    def id(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def version(self) -> int: ...
    def to_dict(self) -> dict[str, Any]: ...
    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self: ...
    @classmethod
    def from_dicts(cls, several: Iterable[dict[str, Any]]) -> list[Self]: ...
    def stamped(self, tenant_id: str) -> Self: ...
    def successor(self) -> Self: ...


E = TypeVar("E", bound=_Versioned)


class MongoRepository(BaseRepository[E], Generic[E]):
    """A repository of the documents of one tenant.

    Class attributes:
        collection_name: where they are.
        document_class: what they are.
        filter_class: what may be asked for.

    Every method raises ``ValidationError`` for an argument that cannot be right, before anything is sent, and
    ``ConnectionError`` where the database cannot be reached.
    """

    collection_name: ClassVar[str]
    document_class: type[E]
    filter_class: type[Filter]

    def __init__(self, database: TenantDatabase) -> None:
        super().__init__()
        self._database = database
        self._documents = database.collection(self.collection_name, self.document_class.entity_type)

    @property
    def tenant_id(self) -> str:
        """Whose documents these are."""
        return self._database.tenant_id

    @abstractmethod
    def _key(self, entity_id: str) -> Key:
        """Return the key of an id a caller gave."""

    def _stamp(self, entity: E) -> E:
        if not isinstance(entity, self.document_class):
            kind = self.document_class.__name__
            raise ValidationError(f"entity: must be a {kind}, not {type(entity).__name__}", "entity")
        if entity.tenant_id:
            self._database.check_tenant(entity.tenant_id)
            return entity
        return entity.stamped(self.tenant_id)

    async def create(self, entity: E) -> E:
        """Store a new entity and return it as it was stored.

        Raises:
            DuplicateEntityError: its id is, or was lately, in use.
            TenantMismatchError: it belongs to another tenant.
        """
        stamped = self._stamp(entity)
        await self._documents.insert(self._key(stamped.id), stamped.to_dict())
        return stamped

    async def get_by_id(self, entity_id: str) -> E | None:
        """Return an entity, or None if there is none of this id."""
        return await self._entity(self._key(entity_id))

    async def _entity(self, key: Key) -> E | None:
        stored = await self._documents.get(key)
        return self.document_class.from_dict(stored) if stored is not None else None

    async def _entities(self, stored: Sequence[Stored]) -> list[E]:
        return self.document_class.from_dicts(stored)

    async def exists(self, entity_id: str) -> bool:
        """Say whether there is an entity of this id."""
        return await self._documents.exists(self._key(entity_id))

    @by_one_deadline
    async def update(self, entity: E) -> E:
        """Store the state of an entity, if nobody has changed it since it was read; return its successor.

        Raises:
            ConcurrencyError: somebody has; nothing was changed.
            EntityNotFoundError: it is gone.
            TenantMismatchError: it belongs to another tenant.
        """
        stamped = self._stamp(entity)
        successor = stamped.successor()
        key = self._key(stamped.id)
        if not await self._documents.update(key, {"version": stamped.version}, _state_change(successor)):
            await self._explain_unmatched(key, stamped.version)
        return successor

    @by_one_deadline
    async def update_with(self, entity_id: str, change: Callable[[E], E]) -> E:
        """Read an entity, apply a pure function to it and store the result, again if somebody else was faster.

        Raises:
            EntityNotFoundError: there is none of this id.
            ConcurrencyError: somebody else was faster every time.
        """
        if not callable(change):
            raise ValidationError(f"change: must be a function, not {type(change).__name__}", "change")
        attempts = 1 if self._database.in_transaction() else UPDATE_ATTEMPTS
        retrying = AsyncRetrying(
            stop=stop_after_attempt(attempts),
            wait=wait_random_exponential(multiplier=0.005, max=0.5),
            retry=retry_if_exception_type(ConcurrencyError),
            reraise=True,
        )
        return await retrying(self._update_once, entity_id, change)

    async def _update_once(self, entity_id: str, change: Callable[[E], E]) -> E:
        entity = await self.get_by_id(entity_id)
        if entity is None:
            raise EntityNotFoundError(self.document_class.entity_type, entity_id)
        changed = change(entity)
        if isinstance(changed, self.document_class) and changed.id != entity.id:
            raise ValidationError("entity: the change must return the entity that it was given", "entity")
        return await self.update(changed)

    @by_one_deadline
    async def delete(self, entity_id: str, version: int | None = None) -> bool:
        """Delete an entity; its id stays taken for 30 days. Return False if there is none.

        Args:
            entity_id: which one.
            version: only if it is still at this version.

        Raises:
            ConcurrencyError: it is at another version.
        """
        key = self._key(entity_id)
        guard = {} if version is None else {"version": check_version(version)}
        deleted = await self._documents.update(key, guard, tombstone())
        if not deleted and version is not None and await self._documents.exists(key):
            await self._explain_unmatched(key, version)
        return deleted

    async def _explain_unmatched(self, key: Key, expected_version: int) -> None:
        kind, entity_id = self.document_class.entity_type, join(*key)
        entity = await self._entity(key)
        if entity is None:
            raise EntityNotFoundError(kind, entity_id)
        raise ConcurrencyError(expected_version, entity.version, kind, entity_id)

    def _filter(self, filters: Mapping[str, Any] | Filter | None) -> Filter:
        parsed = self.filter_class.parse(filters)
        if parsed.tenant_id is not None:
            self._database.check_tenant(parsed.tenant_id)
        return parsed

    def _build_query(self, filters: Mapping[str, Any] | Filter | None) -> dict[str, Any]:
        """Build MongoDB query from filters; the gateway adds the tenant."""
        return self._query(self._filter(filters))

    def _query(self, parsed: Filter) -> dict[str, Any]:
        return parsed.query()

    async def count(self, filters: Mapping[str, Any] | Filter | None = None) -> int:
        """Count the entities that match."""
        return await self._documents.count(self._build_query(filters))

    async def page(
        self,
        filters: Mapping[str, Any] | Filter | None = None,
        pagination: Pagination | None = None,
        cursor: str | None = None,
    ) -> KeysetPage[E]:
        """Return a page by keyset: the first one, or the one that a cursor leads to.

        Args:
            filters: which entities.
            pagination: size and order; its page number is not used.
            cursor: ``next_cursor`` of the page before.
        """
        pagination = checked(pagination)
        parsed = self._filter(filters)
        keyset = self._keyset(parsed, pagination)
        condition = keyset.condition_after(cursor) if cursor is not None else {}
        query = {"$and": [self._query(parsed), condition]} if condition else self._query(parsed)
        find = self._documents.find_first if parsed.is_indexed else self._documents.find
        found = await find(query, keyset.sort, limit=pagination.page_size + 1)
        page, following = next_page(keyset, found, pagination.page_size)
        return KeysetPage(await self._entities(page), following)

    def _keyset(self, parsed: Filter, pagination: Pagination) -> Keyset:
        field, direction = self._build_sort_criteria(pagination)[0]
        asked = parsed.model_dump_json(exclude_unset=True, exclude={"tenant_id"}, warnings=False)
        return Keyset(field, direction, f"{self.tenant_id}\n{self.collection_name}\n{asked}")

    async def iterate_all(
        self, filters: Mapping[str, Any] | Filter | None = None, pagination: Pagination | None = None
    ) -> AsyncIterator[E]:
        """Iterate over all entities that match, page by page."""
        size = checked(pagination or Pagination(page_size=MAX_PAGE_SIZE))
        cursor: str | None = None
        while True:
            page = await self.page(filters, size, cursor)
            for entity in page.items:
                yield entity
            cursor = page.next_cursor
            if cursor is None:
                return

    @by_one_deadline
    async def list(
        self, filters: Mapping[str, Any] | Filter | None = None, pagination: Pagination | None = None
    ) -> PaginatedResult[E]:
        """Return a page by number, and how many entities match.

        Counting costs nothing where the page is the last one.
        """
        pagination = checked(pagination)
        parsed = self._filter(filters)
        query, sort = self._query(parsed), self._keyset(parsed, pagination).sort
        size, offset = pagination.page_size, pagination.offset
        found = await self._documents.find(query, sort, offset, size + 1)
        derivable = len(found) <= size and (found or not offset)
        total = offset + len(found) if derivable else await self._documents.count(query)
        return PaginatedResult.create(await self._entities(found[:size]), total, pagination)


def checked(pagination: Pagination | None) -> Pagination:
    """Return the pagination of a caller, or the default one.

    Raises:
        ValidationError: it is none, or a parameter is out of its range.
    """
    pagination = pagination if pagination is not None else Pagination()
    if not isinstance(pagination, Pagination):
        raise ValidationError("pagination: must be a Pagination", "pagination")
    pagination.validate()
    return pagination


def check_version(version: object) -> int:
    """Return a version that a caller gave.

    Raises:
        ValidationError: it cannot be one.
    """
    if type(version) is not int or not 1 <= version < 2**63:
        raise ValidationError("version: must be a number >= 1", "version")
    return version


def _state_change(successor: _Versioned) -> dict[str, Any]:
    stored = successor.to_dict()
    names = (*successor.state_fields, "version", "escaped")
    change = {"$set": {name: stored[name] for name in names if name in stored}}
    gone = {name: "" for name in names if name not in stored}
    return {**change, "$unset": gone} if gone else change


def tombstone() -> list[dict[str, Any]]:
    """Return the change that leaves of a document what keeps its id taken."""
    # Without a tenant no query finds it; by the server's clock it is purged.
    version = {"$add": ["$version", 1]}
    return [{"$replaceWith": {"_id": "$_id", "version": version, "deleted_at": "$$NOW", "purge_at": _PURGE}}]
