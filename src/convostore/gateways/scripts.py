"""Lua scripts: each in its file, sent by its hash."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources


@dataclass(frozen=True)
class Script:
    """What one call to the server does as a whole.

    All keys that it touches are given to it, and share one hash tag. It never holds its result back from being
    repeated: ``repeatable`` says that running it twice leaves what running it once leaves.

    Attributes:
        name: the file in ``lua``, without its ending.
        parts: files whose functions it uses, put before it.
        writes: whether it may change something.
        repeatable: whether it may be sent again after an unclear failure.
    """

    name: str
    parts: tuple[str, ...] = field(default=())
    writes: bool = True
    repeatable: bool = False

    @cached_property
    def text(self) -> str:
        """The source, read at first use."""
        folder = resources.files("convostore.gateways") / "lua"
        return "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in (*self.parts, self.name))

    @cached_property
    def sha(self) -> str:
        """What the server calls it."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
