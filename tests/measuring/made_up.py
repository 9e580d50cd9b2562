"""Findings that nobody has measured, to be written and drawn."""

from benchmarks import contest
from benchmarks.contest import Call, Case, Contestant
from benchmarks.findings import Findings, Opened
from benchmarks.importing import Cost, Imports
from benchmarks.measuring import Result, Sample
from benchmarks.memory import Weight
from benchmarks.newest_cells import ChatPhase
from benchmarks.open_loop import Load, Tally
from benchmarks.overload import Overload, Plan, Second

from convostore.operations.redis_stats import KeyStats

PEERS = {
    contest.APPEND_MANY: {"Beanie": 0.8, "openai-agents, MongoDB": 0.4, "langchain-mongodb": 0.31},
    contest.NEWEST: {"Beanie": 0.5, "langchain-mongodb": 0.1},
    contest.RATE: {"limits, moving window": 0.4},
    contest.CACHE: {"cashews": 0.9},
}
SPEED = {1: 0.95, 16: 3.0, 64: 6.37, 256: 8.0}
WORK = (contest.GET, contest.APPEND_MANY, contest.APPEND_ONE, contest.NEWEST, contest.RATE, contest.CACHE)


def samples(speed: float, rounds: int = 4) -> list[Sample]:
    """Return turns that are so many times as fast as a millisecond each."""
    each = 0.001 / speed
    return [Sample(100, 0, each * 100 * (1 + n / 100), each / 2, each / 3, each, each * 2) for n in range(rounds)]


def result(case: str, callers: int, contestant: str, speed: float) -> Result:
    """Return a result beside a contestant of a millisecond."""
    return Result(case, callers, contestant, samples(speed), samples(1.0))


def closed() -> list[Result]:
    """Return results of raw driver, convostore and peers."""
    return [
        result(case, callers, who, speed)
        for case in WORK
        for callers, ours in SPEED.items()
        for who, speed in {contest.RAW: 1.0, contest.OURS: ours, **PEERS.get(case, {})}.items()
    ]


def opened(case: str, contestant: str, rate: float, seconds: float) -> Opened:
    """Return an open loop of a hundred calls that all took so long."""
    tally = Tally(arrived=100, latencies=[seconds] * 100, client=0.01, servers=0.005)
    return Opened(case, contestant, Load(rate, 1), tally)


def overloaded(*tails: float) -> Overload:
    """Return an overload with these tails in the seconds after it, in seconds; before it was a tenth."""
    phases = Plan(1, before=1, during=2, after=len(tails)).phases
    tails_of = {phases[0]: (0.1,), phases[1]: (3.0, 5.0), phases[2]: tails}
    seconds = [Second(phase, 10, [tail] * 9, refused=1, resident=2**27) for phase in phases for tail in tails_of[phase]]
    return Overload(contest.GET, 2_000, phases, seconds)


def findings() -> Findings:
    """Return one of everything."""
    return Findings(
        facts={"machine": "an abacus"},
        closed=closed(),
        opened=[
            opened(case, who, rate, base * rate / 1_000)
            for case in (contest.GET, contest.APPEND_MANY)
            for who, base in ((contest.RAW, 0.05), (contest.OURS, 0.0005))
            for rate in (1_000, 10_000)
        ],
        overloads=[overloaded(4.0, 0.3, 0.1)],
        lengths=[result("append", 1, f"{n:,} messages", 1.0) for n in (100, 200_000)],
        tenants=[result("get by id", 1, f"{n:,} tenants", 1.0 - n / 1e5) for n in (1, 100, 10_000)],
        weights=[Weight(contest.OURS, 10_000, 60 * 2**20, 61 * 2**20)],
        imports=Imports(1_234, [Cost(20.0, 10.0, 12.0)], [Cost(21.0, 12.0, 13.0)]),
        keys=[KeyStats("session", 3, 321.4)],
        chat=[ChatPhase(False, 100, 40, 2.0, [0.001]), ChatPhase(True, 100, 2, 1.0, [0.0005])],
    )


def case(*contestants: tuple[str, Call]) -> Case:
    """Return a piece of work by its contestants' calls."""
    return Case("work", tuple(Contestant(name, call) for name, call in contestants))
