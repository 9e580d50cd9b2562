"""The chart of a run: throughput beside the raw driver and the peers, latency under load, growth, in one picture."""

import io
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks import aims, contest
from benchmarks.findings import Findings, Opened
from benchmarks.measuring import Result
from benchmarks.sheets import figure

GREEN, GREY, RED, INK, FAINT, LINE = "#0b6e4f", "#9aa5b1", "#d1495b", "#22303c", "#6b7785", "#e3e8ee"
DOTS = {1: "#c9dfd4", 16: "#7fb69c", 256: "#04402d"}
BY_WORK = {"get by id": "#2f6690", "append": GREEN, "newest 50": RED}
SHOWN_WITH_PEERS = (contest.APPEND_MANY, contest.APPEND_ONE, contest.NEWEST, contest.RATE, contest.CACHE)
STYLE = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "svg.hashsalt": "convostore",
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": LINE,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


def draw(findings: Findings) -> str:
    """Return the picture as SVG; a panel for which nothing was measured says so."""
    with rc_context(STYLE):
        picture = Figure(figsize=(13, 12), layout="constrained", facecolor="white")
        picture.get_layout_engine().set(w_pad=0.15, h_pad=0.15, wspace=0.04, hspace=0.04)
        rows = picture.subplots(2, 2, height_ratios=(1.25, 1))
        ours = [one for one in findings.closed if one.contestant == contest.OURS]
        _panel(rows[0][0], "Throughput at 64 callers, raw driver = 1", ours, _throughput)
        _panel(rows[0][1], "Peers at 64 callers, raw driver = 1", findings.closed, _peers)
        _panel(rows[1][0], "Open loop: p99 in ms", findings.opened, _latency)
        _panel(rows[1][1], "Growth: time of a call, first = 1", [findings.lengths, findings.tenants], _growth)
        output = io.StringIO()
        FigureCanvasSVG(picture).print_svg(output, metadata={"Date": None})
    return output.getvalue()


def _panel(axes: Axes, title: str, found: Sequence[object], fill: Callable[[Axes, Sequence], None]) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=12)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(which="both", length=0)
    axes.set_axisbelow(True)
    if any(found):
        fill(axes, found)
    else:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=FAINT)
        axes.set(xticks=[], yticks=[])


def _plain_log(axes: Axes, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_formatter(NullFormatter())
    axes.grid(axis=which, color=LINE, linewidth=0.8)


def _throughput(axes: Axes, ours: Sequence[Result]) -> None:
    _plain_log(axes, "x")
    names = list(dict.fromkeys(one.case for one in ours))
    for one in ours:
        place, spread = names.index(one.case), one.throughput
        if one.callers == aims.MANY:
            _bar(axes, place, spread.median, GREEN)
            axes.text(1.01, place, figure(spread.median), transform=axes.get_yaxis_transform(), va="center")
            axes.plot([spread.low, spread.high], [place, place], color=INK, linewidth=1.2, zorder=4)
        elif one.callers in DOTS:
            axes.plot(spread.median, place, "o", color=DOTS[one.callers], markeredgecolor="white", ms=7, zorder=5)
        aim = aims.AIMS[one.case].get(one.callers)
        if one.callers == aims.MANY and aim:
            axes.plot([aim.bound, aim.bound], [place - 0.38, place + 0.38], color=RED, linewidth=2.2, zorder=6)
    bounds = [aim.bound for name in names if (aim := aims.AIMS[name].get(aims.MANY))]
    _around_one(axes, [*bounds, *(one.throughput.median for one in ours)])
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.invert_yaxis()
    for callers, colour in DOTS.items():
        axes.plot([], [], "o", color=colour, label=f"{callers} caller{'s' if callers > 1 else ''}")
    axes.plot([], [], color=RED, linewidth=2.2, label="aim at 64")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.05), ncols=4, frameon=False, handlelength=1.2)


def _bar(axes: Axes, place: float, ratio: float, colour: str) -> None:
    """Draw how far a ratio is from 1."""
    axes.barh(place, ratio - 1, left=1, height=0.62, color=colour, zorder=2)


def _tell(axes: Axes, place: float, ratio: float) -> None:
    side, away = ("left", 6) if ratio >= 1 else ("right", -6)
    axes.annotate(
        figure(ratio), (ratio, place), (away, 0), textcoords="offset points", ha=side, va="center", fontsize=8
    )


def _around_one(axes: Axes, ratios: Iterable[float]) -> None:
    values = list(ratios)
    axes.set_xlim(min(0.5, *(value * 0.6 for value in values)), max(4, *(value * 1.7 for value in values)))
    ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if _within(axes, tick)]
    axes.set_xticks(ticks)
    axes.axvline(1, color=INK, linewidth=1, zorder=3)


def _within(axes: Axes, tick: float) -> bool:
    low, high = axes.get_xlim()
    return low <= tick <= high


def _peers(axes: Axes, results: Sequence[Result]) -> None:
    _plain_log(axes, "x")
    shown = [one for one in results if one.callers == aims.MANY and one.contestant not in (contest.RAW, contest.NAIVE)]
    shown = [one for one in shown if one.case in SHOWN_WITH_PEERS]
    places: list[float] = []
    labels: list[str] = []
    drawn: list[float] = [1.0]
    place = 0.0
    for case, group in groupby(shown, key=lambda one: one.case):
        places.append(place)
        labels.append(case)
        for one in group:
            place += 1
            places.append(place)
            labels.append(one.contestant)
            drawn.append(one.throughput.median)
            _bar(axes, place, drawn[-1], GREEN if one.contestant == contest.OURS else GREY)
            _tell(axes, place, drawn[-1])
        place += 1.4
    _around_one(axes, drawn)
    axes.set_yticks(places, labels, fontsize=8, color=INK)
    for label in axes.get_yticklabels():
        if label.get_text() in SHOWN_WITH_PEERS:
            label.set_fontweight("bold")
    axes.invert_yaxis()


def _latency(axes: Axes, opened: Sequence[Opened]) -> None:
    _plain_log(axes, "x")
    _plain_log(axes, "y")
    for case, style in ((contest.GET, "-"), (contest.APPEND_MANY, "--")):
        for who, colour in ((contest.RAW, GREY), (contest.OURS, GREEN)):
            mine = [one for one in opened if (one.case, one.contestant) == (case, who)]
            rates = [one.load.rate for one in mine]
            tails = [one.tally.percentile(0.99) * 1e3 for one in mine]
            axes.plot(rates, tails, style, marker="o", ms=5, color=colour, linewidth=2, label=f"{who}: {case}")
    axes.set_xticks(sorted({one.load.rate for one in opened}))
    axes.set_xlabel("arrivals a second")
    _legend_below(axes)


def _growth(axes: Axes, found: Sequence[Sequence[Result]]) -> None:
    _plain_log(axes, "x")
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    highest = 1.0
    for results, unit, style in zip(found, ("messages", "tenants"), ("-", "--"), strict=True):
        alone = [one for one in results if one.callers == 1]
        for case, group in groupby(alone, key=lambda one: one.case):
            colour = BY_WORK.get(case, GREY)
            mine = list(group)
            amounts = [int(one.contestant.partition(" ")[0].replace(",", "")) for one in mine]
            spreads = [one.time for one in mine]
            ratios = [spread.median for spread in spreads]
            highest = max(highest, *ratios)
            axes.plot(amounts, ratios, style, marker="o", ms=5, color=colour, linewidth=2, label=f"{case}, by {unit}")
            lows, highs = [spread.low for spread in spreads], [spread.high for spread in spreads]
            axes.fill_between(amounts, lows, highs, color=colour, alpha=0.08, linewidth=0)
    axes.set_ylim(0, max(2.0, highest * 1.2))
    axes.xaxis.set_major_locator(LogLocator())
    axes.set_xlabel("messages, tenants")
    _legend_below(axes)


def _legend_below(axes: Axes, **options: float) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.1), ncols=2, frameon=False, handlelength=2.6, **options)
