"""Commands for whoever runs a database."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from convostore.cli.drawing import cell, standard_output, table
from convostore.cli.options import (
    AsJson,
    DatabaseName,
    DataDirectory,
    MongoUri,
    RedisUrl,
    Where,
    open_gateway,
    open_gateways,
)
from convostore.cli.reporting import FAILED, print_json, run
from convostore.models.identity import check_identifier
from convostore.operations.indexes import Schema, Step
from convostore.operations.redis_stats import RedisStats, collect
from convostore.operations.schema import COLLECTIONS
from convostore.operations.stats import Stats, StoreStats

_BAR_WIDTH = 30
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024

OneTenant = Annotated[str | None, typer.Option("--tenant", "-t", help="Only this tenant.")]
Apply = Annotated[bool, typer.Option("--apply", help="Create what is missing; nothing is ever dropped.")]


def stats_command(
    *,
    tenant: OneTenant = None,
    as_json: AsJson = False,
    mongodb_uri: MongoUri = None,
    redis_url: RedisUrl = None,
    database: DatabaseName = None,
    data: DataDirectory = None,
) -> None:
    """Count conversations and messages, what is kept in Redis, and the room that they take.

    Example: convostore stats --tenant acme
    """
    stats, redis = run(_stats(Where(mongodb_uri, database, data, redis_url), tenant))
    if as_json:
        sizes = [{**asdict(size), "bytes_per_document": round(size.bytes_per_document, 1)} for size in stats.sizes]
        tenants = [asdict(tenant) for tenant in stats.tenants]
        print_json({"tenants": tenants, "sizes": sizes, "redis": asdict(redis) if redis else None})
    else:
        _draw_stats(stats)
        if redis is not None:
            _draw_keys(redis)


async def _stats(where: Where, tenant: str | None) -> tuple[StoreStats, RedisStats | None]:
    if tenant is not None:
        check_identifier(tenant, "tenant")
    async with open_gateways(where) as (mongodb, redis):
        stats = await Stats(mongodb.administration).collect(tenant)
        return stats, await collect(redis.state) if redis else None


def _draw_stats(stats: StoreStats) -> None:
    console = standard_output()
    tenants = table("tenants", "tenant", "conversations", "messages", "", "status", "role")
    most = max((tenant.messages for tenant in stats.tenants), default=0)
    for tenant in stats.tenants:
        tenants.add_row(
            cell(tenant.tenant_id),
            cell(tenant.conversations),
            cell(tenant.messages),
            cell(bar(tenant.messages, most), "cyan"),
            cell(_counts(tenant.statuses)),
            cell(_counts(tenant.roles)),
        )
    console.print(tenants)
    sizes = table("room on disk, all tenants", "collection", "documents", "data", "stored", "indexes", "bytes each")
    for size in stats.sizes:
        room = map(readable, (size.data, size.storage, size.indexes))
        sizes.add_row(*map(cell, (size.name, size.documents, *room, f"{size.bytes_per_document:.0f}")))
    console.print(sizes)


def _draw_keys(stats: RedisStats) -> None:
    title = "Redis, all tenants" if stats.complete else "Redis, all tenants, counted in part"
    drawn = table(title, "kind", "keys", "bytes each")
    for kind in stats.kinds:
        drawn.add_row(*map(cell, (kind.kind, kind.keys, f"{kind.bytes_per_key:.0f}")))
    standard_output().print(drawn)


def bar(value: int, most: int) -> str:
    """Return a bar as long as a value is of the greatest one."""
    return "█" * max(1, round(_BAR_WIDTH * value / most)) if value else ""


def readable(size: float) -> str:
    """Return a number of bytes in the unit that fits it."""
    for unit in _UNITS[:-1]:
        if size < _STEP:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} {_UNITS[-1]}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def indexes_command(
    *,
    apply: Apply = False,
    as_json: AsJson = False,
    mongodb_uri: MongoUri = None,
    database: DatabaseName = None,
    data: DataDirectory = None,
) -> None:
    """Compare collections and indexes with what convostore needs, and create what is missing if asked.

    Ends with exit code 1 while something is missing or different.

    Example: convostore indexes --apply
    """
    steps = run(_indexes(Where(mongodb_uri, database, data), apply=apply))
    if as_json:
        print_json([{**asdict(step), "serves": _serves(step)} for step in steps])
    else:
        _draw_steps(steps)
    if steps:
        raise typer.Exit(FAILED)


async def _indexes(where: Where, *, apply: bool) -> Sequence[Step]:
    async with open_gateway(where) as gateway:
        schema = Schema(gateway.administration)
        steps = await schema.plan()
        if apply and steps:
            await schema.apply(steps)
            steps = await schema.plan()
        return steps


def _draw_steps(steps: Sequence[Step]) -> None:
    by_name = {(step.collection, step.name): step for step in steps}
    drawn = table("collections and indexes", "collection", "index", "serves", "state")
    for collection in COLLECTIONS:
        rows = [("", "the documents, by identity"), *((index.name, index.serves) for index in collection.indexes)]
        for name, serves in rows:
            drawn.add_row(cell(collection.name), cell(name), cell(serves), _state(by_name.get((collection.name, name))))
    console = standard_output()
    console.print(drawn)
    for step in steps:
        if step.present is not None:
            console.print(cell(f"{step.kind} {step.collection} {step.name}".rstrip(), "bold"))
            console.print(cell(f"  wanted:  {_spelled(step.wanted)}"))
            console.print(cell(f"  present: {_spelled(step.present)}"))


def _state(step: Step | None) -> Any:
    if step is None:
        return cell("ok", "green")
    return cell("missing: --apply creates it", "yellow") if step.can_be_applied else cell("different", "red")


def _spelled(description: Mapping[str, Any]) -> str:
    return str({name: dict(value) if isinstance(value, Mapping) else value for name, value in description.items()})


def _serves(step: Step) -> str:
    indexes = [
        index for collection in COLLECTIONS if collection.name == step.collection for index in collection.indexes
    ]
    return next((index.serves for index in indexes if index.name == step.name), "")
