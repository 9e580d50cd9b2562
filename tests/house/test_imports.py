"""Dependencies point down only, one package touches the drivers, and importing does nothing."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import convostore

SOURCE = Path(convostore.__file__).parent
LAYERS = (
    "logs",
    "models",
    "gateways",
    "database",
    "repositories",
    "sync",
    "operations",
    "tenant_store",
    "store",
    "testing",
    "cli",
)
LOWEST = "convostore.repositories.exceptions"  # imports nothing of the package, so everybody may raise its errors
DRIVERS = ("pymongo", "bson", "gridfs", "motor", "redis")


def modules() -> Iterator[tuple[str, Path]]:
    """Return the name and file of each module of the package."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path


def imported(source: str) -> set[str]:
    """Return what a module imports at run time; what only a type checker sees does not count."""
    return {name for node in _statements(ast.parse(source)) for name in _names(node)}


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _statements(child)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where they lead"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def layer(name: str) -> int:
    """Return how high a module stands."""
    if name == LOWEST or name.startswith(f"{LOWEST}."):
        return -1
    parts = name.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 and parts[1] in LAYERS else len(LAYERS)


def upward(name: str, source: str) -> list[str]:
    """Return what a module imports from above itself."""
    own = sorted(other for other in imported(source) if other.split(".")[0] == "convostore")
    return [other for other in own if layer(other) > layer(name)]


MODULES = [pytest.param(name, path, id=name) for name, path in modules() if name != "convostore"]


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_no_module_imports_upwards(name: str, path: Path) -> None:
    assert name == LOWEST or name.split(".")[1] in LAYERS, "a package without a place in the order"
    assert upward(name, path.read_text(encoding="utf-8")) == []


def test_the_errors_import_nothing_of_the_package() -> None:
    source = (SOURCE / "repositories" / "exceptions.py").read_text(encoding="utf-8")
    assert not [other for other in imported(source) if other.startswith("convostore")]


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_only_the_gateways_touch_a_driver(name: str, path: Path) -> None:
    if name.startswith("convostore.gateways"):
        return
    drivers = {other for other in imported(path.read_text(encoding="utf-8")) if other.split(".")[0] in DRIVERS}
    assert not drivers


def test_the_check_of_the_layers_finds_an_upward_import() -> None:
    source = "from convostore.store import ConvoStore\nif TYPE_CHECKING:\n    from convostore.cli import main\n"
    assert upward("convostore.gateways.retry", source) == ["convostore.store.ConvoStore"]
    assert upward("convostore.models.types", "import convostore.gateways.lanes") == ["convostore.gateways.lanes"]
    assert upward("convostore.models.types", f"from {LOWEST} import ValidationError") == []


WATCHED = """
import sys, json, threading, asyncio
events = []
def watch(event, args):
    if event.startswith(("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn")) or (
        event in ("os.mkdir", "os.remove", "os.rename", "_thread.start_new_thread", "shutil.copyfile")
    ):
        events.append(event)
    elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        events.append(f"open {args[0]}")
sys.addaudithook(watch)
BODY
print(json.dumps({"events": events, "threads": threading.active_count()}))
"""


def _watch(body: str) -> dict[str, object]:
    command = [sys.executable, "-B", "-c", WATCHED.replace("BODY", body)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_importing_convostore_does_nothing() -> None:
    assert _watch("import convostore") == {"events": [], "threads": 1}


def test_the_watch_over_the_import_sees_a_socket_a_file_and_a_thread(tmp_path: Path) -> None:
    body = (
        f"import socket; socket.socket().bind(('127.0.0.1', 0)); open({str(tmp_path / 'file')!r}, 'w').close(); "
        "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    seen = _watch(body)
    events = seen["events"]
    assert isinstance(events, list)
    assert {event.partition(" ")[0] for event in events} >= {"socket.bind", "open"}
    assert seen["threads"] == 2
