"""Loggers that speak structlog and obey the standard library's levels.

The library is silent until an application configures the logger ``convostore``, as any library should be.
"""

import logging

import structlog

ROOT = "convostore"
logging.getLogger(ROOT).addHandler(logging.NullHandler())


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger ``convostore.<name>``; its events carry their fields as ``extra``."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{name}"),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
    )
    return logger
