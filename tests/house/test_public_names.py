"""What a user imports is listed, sorted and described."""

import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import Any

import pytest

import convostore
from convostore.repositories import exceptions

MODULES = [
    info.name
    for info in pkgutil.walk_packages(convostore.__path__, "convostore.")
    if not info.name.endswith("__main__")
]


def test_the_public_names_are_exactly_what_is_there() -> None:
    there = [
        name
        for name, value in vars(convostore).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert sorted(convostore.__all__) == sorted(there)


def test_the_names_of_the_errors_are_sorted_and_exactly_what_is_there() -> None:
    there = [
        name for name, value in vars(exceptions).items() if getattr(value, "__module__", "") == exceptions.__name__
    ]
    assert exceptions.__all__ == sorted(name for name in there if not name.startswith("_"))


def test_every_error_is_public() -> None:
    assert set(exceptions.__all__) <= set(convostore.__all__)


def drawn_tree(text: str) -> dict[str, str | None]:
    """Return the parent of each class drawn in a docstring."""
    parents: dict[str, str | None] = {}
    above: list[str] = []
    for indent, name in re.findall(r"^    ((?:[│ ]  )*(?:[├└]─ )?)(\w+Error)\b", text, re.MULTILINE):
        depth = len(indent) // 3
        parents[name] = above[depth - 1] if depth else None
        above[depth:] = [name]
    return parents


def test_the_drawn_tree_of_the_errors_is_the_tree_of_their_classes() -> None:
    classes = [value for value in vars(exceptions).values() if inspect.isclass(value) and issubclass(value, Exception)]
    ours = [cls for cls in classes if cls.__module__ == exceptions.__name__]
    real = {cls.__name__: cls.__bases__[0].__name__ if cls.__bases__[0] in ours else None for cls in ours}
    assert drawn_tree(exceptions.__doc__ or "") == real


def test_the_remarks_in_the_drawn_tree_are_true() -> None:
    for line in (exceptions.__doc__ or "").splitlines():
        for name, remark in re.findall(r"(\w+Error)\s{2,}(\S.*)$", line):
            cls = getattr(exceptions, name)
            assert not remark.startswith("retryable") or cls.retryable
            assert not remark.startswith("not retryable") or not cls.retryable
            for builtin in re.findall(r"also a (?:builtin )?(\w+Error)", remark):
                assert issubclass(cls, getattr(importlib.import_module("builtins"), builtin))


def _undescribed(module: ModuleType) -> list[str]:
    found = [] if module.__doc__ else [module.__name__]
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) and not value.__doc__:
            found.append(f"{module.__name__}.{name}")
        if inspect.isclass(value):
            found += [f"{module.__name__}.{name}"] if not value.__doc__ else []
            found += [f"{module.__name__}.{name}.{member}" for member in _undescribed_members(value)]
    return found


def _undescribed_members(cls: type) -> list[str]:
    public = [(name, value) for name, value in vars(cls).items() if not name.startswith("_")]
    return [name for name, value in public if _is_code(value) and not inspect.getdoc(_unwrapped(value))]


def _is_code(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)


def _unwrapped(value: Any) -> Any:
    return value.fget if isinstance(value, property) else getattr(value, "__func__", value)


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_described(name: str) -> None:
    module = importlib.import_module(name)
    assert _undescribed(module) == []


def test_the_check_of_descriptions_finds_a_method_without_one() -> None:
    class Described:
        """Has a method without a description."""

        def method(self) -> None: ...

    assert _undescribed_members(Described) == ["method"]
