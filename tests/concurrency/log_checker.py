"""What a message log must look like after many processes have written to it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

Entry = tuple[int, str]  # sequence, text
Acknowledged = Mapping[str, Sequence[Sequence[Entry]]]  # for each process its calls in order, each with its messages


def violations(log: Sequence[Entry], acknowledged: Acknowledged, perhaps: Collection[str] = ()) -> list[str]:
    """Return what is wrong with a log: not dense, a message missing, twice or elsewhere, out of order, torn apart.

    Args:
        log: the log.
        acknowledged: what was acknowledged.
        perhaps: texts that may be there as well, once.
    """
    found = _not_dense([sequence for sequence, _ in log])
    place = dict(log)
    texts = Counter(text for _, text in log)
    found += [f"stored twice: {text}" for text in sorted(texts) if texts[text] > 1]
    written = {text for calls in acknowledged.values() for call in calls for _, text in call}.union(perhaps)
    found += [f"nobody wrote {text} at {sequence}" for sequence, text in log if text not in written]
    for process, calls in acknowledged.items():
        found += [
            f"{text} was acknowledged at {sequence}, where {place.get(sequence)} stands"
            for call in calls
            for sequence, text in call
            if place.get(sequence) != text
        ]
        found += _out_of_order(process, calls) + _torn(process, calls)
    return found


def late_arrivals(seen: Sequence[Entry], log: Sequence[Entry]) -> list[str]:
    """Return what is wrong with what a reader saw who always asked for what is behind the last he had."""
    found = _not_dense([sequence for sequence, _ in seen])
    final = dict(log)
    found += [f"the reader saw {text} at {sequence}" for sequence, text in seen if final.get(sequence) != text]
    missed = len(log) - len(seen)
    return found + ([f"the reader missed {missed} messages"] if missed else [])


def _not_dense(sequences: Sequence[int]) -> list[str]:
    expected = range(1, len(sequences) + 1)
    wrong = [(sequence, place) for sequence, place in zip(sequences, expected, strict=True) if sequence != place]
    return [f"sequence {wrong[0][0]} stands where {wrong[0][1]} should"] if wrong else []


def _out_of_order(process: str, calls: Sequence[Sequence[Entry]]) -> list[str]:
    sequences = [sequence for call in calls for sequence, _ in call]
    return [] if sequences == sorted(sequences) else [f"messages of process {process} are out of order"]


def _torn(process: str, calls: Sequence[Sequence[Entry]]) -> list[str]:
    return [
        f"a batch of process {process} at {call[0][0]} is not adjacent"
        for call in calls
        if [sequence for sequence, _ in call] != list(range(call[0][0], call[0][0] + len(call)))
    ]
