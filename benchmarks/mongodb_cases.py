"""The work on MongoDB, done by convostore and by the driver alone, and the check that it is the same work."""

import asyncio
from collections.abc import Iterator

from benchmarks import contest
from benchmarks.contest import Case, Contestant
from benchmarks.raw_driver import RawWorkload
from benchmarks.repositories import Workload


def cases(ours: Workload, raw: RawWorkload, naive: RawWorkload) -> Iterator[Case]:
    """Return the work, done by both; reads also by a driver that spares itself the time zones.

    Args:
        ours: convostore.
        raw: the driver, as it gives what convostore gives.
        naive: the driver, giving moments without a zone.
    """
    by_raw, by_naive = raw.calls(), naive.reads()
    for name, call in ours.calls().items():
        settle = ours.settle if name.startswith("append") else None
        both = (Contestant(contest.RAW, by_raw[name]), Contestant(contest.OURS, call, settle))
        yield Case(name, both).joined_by(contest.NAIVE, by_naive)


async def check_same_work(ours: Workload, raw: RawWorkload) -> None:
    """Make sure that both bring the same documents, the newest at the same end, and store equal ones.

    Raises:
        AssertionError: they do not.
    """
    for mine, his in ((await ours.newest(), await raw.newest()), (await ours.page(), await raw.page())):
        told = [document.to_dict() | {"_id": stored["_id"]} for document, stored in zip(mine, his, strict=True)]
        if told != his:
            raise AssertionError(f"not the same documents: {told[:1]} {his[:1]}")
    await asyncio.gather(ours.append(), ours.create(), raw.append(), raw.create())
    for name in ("messages", "conversations"):
        twins = [await raw.database[name].find_one({"tenant_id": t}) for t in ("bench", raw.tenant_id)]
        if set(twins[0]) - {"last_message"} != set(twins[1]):
            raise AssertionError(f"documents of {name} are not alike: {set(twins[0]) ^ set(twins[1])}")
