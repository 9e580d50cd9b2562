"""Looking for planted secrets in whatever a program may show: errors and all that led to them, log records, reprs."""

import logging
import traceback
from collections.abc import Iterator


def shown_by(error: BaseException) -> str:
    """Return everything that can be seen of an error and of what led to it."""
    texts = ["".join(traceback.format_exception(error))]
    for link in _links(error):
        texts += [str(link), repr(link), repr(link.args), repr(vars(link)), repr(getattr(link, "__notes__", ()))]
    return "\n".join(texts)


def _links(error: BaseException) -> Iterator[BaseException]:
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        link = left.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        context = None if link.__suppress_context__ else link.__context__
        left += [link.__cause__, context, getattr(link, "original_error", None)]
        left += getattr(link, "exceptions", ())


def shown_by_record(record: logging.LogRecord) -> str:
    """Return everything that a log record carries, its traceback included."""
    trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
    error = record.exc_info[1] if record.exc_info else None
    return f"{record.getMessage()} {vars(record)} {trace} {shown_by(error) if error else ''}"
