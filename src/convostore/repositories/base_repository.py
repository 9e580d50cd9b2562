"""What all repositories have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from convostore.logs import get_logger
from convostore.repositories.exceptions import ValidationError

T = TypeVar("T")
Sort = list[tuple[str, int]]

MAX_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class Pagination:
    """Pagination parameters.

    Attributes:
        page: the number of the page, from 1.
        page_size: items on a page, 1 to 100.
        sort_by: the field to sort by; by default ``created_at``.
        sort_order: ``"asc"`` or ``"desc"``.
    """

    page: int = 1
    page_size: int = 20
    sort_by: str | None = None
    sort_order: Literal["asc", "desc"] = "desc"

    @property
    def offset(self) -> int:
        """How many items come before the page."""
        return (self.page - 1) * self.page_size

    def validate(self) -> None:
        """Validate pagination parameters.

        Raises:
            ValidationError: a parameter is out of its range; names it.
        """
        if type(self.page) is not int or not 1 <= self.page < 2**31:
            raise ValidationError("page: must be a number >= 1", "page")
        if type(self.page_size) is not int or not 1 <= self.page_size <= MAX_PAGE_SIZE:
            raise ValidationError(f"page_size: must be between 1 and {MAX_PAGE_SIZE}", "page_size")
        if self.sort_order not in ("asc", "desc"):
            raise ValidationError("sort_order: must be 'asc' or 'desc'", "sort_order")


@dataclass(frozen=True, slots=True)
class PaginatedResult(Generic[T]):
    """Paginated result container."""

    items: list[T]
    total: int
    page: int
    page_size: int
    has_next: bool
    has_previous: bool

    @classmethod
    def create(cls, items: list[T], total: int, pagination: Pagination) -> "PaginatedResult[T]":
        """Create paginated result from items and pagination."""
        return cls(
            items=items,
            total=total,
            page=pagination.page,
            page_size=pagination.page_size,
            has_next=pagination.offset + len(items) < total,
            has_previous=pagination.page > 1,
        )


class BaseRepository(ABC, Generic[T]):
    """Abstract base repository class.

    Class attributes:
        sortable_fields: what a page may be sorted by, the default first.
    """

    sortable_fields: ClassVar[tuple[str, ...]] = ("created_at",)

    def __init__(self) -> None:
        self.logger = get_logger(self.__class__.__name__)

    @abstractmethod
    async def create(self, entity: T) -> T:
        """Create a new entity."""

    @abstractmethod
    async def get_by_id(self, entity_id: str) -> T | None:
        """Get entity by ID."""

    @abstractmethod
    async def update(self, entity: T) -> T:
        """Update existing entity."""

    @abstractmethod
    async def delete(self, entity_id: str) -> bool:
        """Delete entity by ID."""

    @abstractmethod
    async def exists(self, entity_id: str) -> bool:
        """Check if entity exists."""

    @abstractmethod
    async def count(self, filters: Mapping[str, Any] | None = None) -> int:
        """Count entities matching filters."""

    def _build_sort_criteria(self, pagination: Pagination | None) -> Sort:
        """Build sort criteria for database queries; ties are broken by identity, so that pages never overlap.

        Raises:
            ValidationError: the field cannot be sorted by.
        """
        pagination = pagination or Pagination()
        field = pagination.sort_by if pagination.sort_by is not None else self.sortable_fields[0]
        direction = 1 if pagination.sort_order == "asc" else -1
        if field not in self.sortable_fields:
            allowed = ", ".join(self.sortable_fields)
            raise ValidationError(f"sort_by: must be one of {allowed}", "sort_by")
        return [(field, direction), ("_id", direction)]

    def _log_operation(self, operation: str, **kwargs: Any) -> None:
        """Log what a repository did beyond a single call to the database, which the gateway logs."""
        self.logger.info("repository operation", operation=operation, **kwargs)

    @abstractmethod
    async def list(
        self, filters: Mapping[str, Any] | None = None, pagination: Pagination | None = None
    ) -> PaginatedResult[T]:
        """List entities with optional filters and pagination."""
