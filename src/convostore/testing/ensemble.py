"""An ensemble: several servers and proxies that start one after the other and end together."""

from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

__all__ = ["Ensemble"]


class Ensemble(ABC):
    """Starts with ``async with``; what has been started ends with it, also if the rest could not be."""

    def __init__(self) -> None:
        self._ends = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._ends.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._ends.aclose()

    @abstractmethod
    async def _start(self) -> None:
        """Start all parts, and let ``_ends`` know how each ends."""
