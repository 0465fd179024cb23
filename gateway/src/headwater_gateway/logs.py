"""Logs: one line for each event, of ours and of the libraries, without secrets."""

import logging

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from headwater_api.reasons import Reason
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor


def configure_logs(level: str, format_: str) -> None:
    """Send structlog's events and the standard library's records to stdout. `format_`: json or console."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=log_processors(format_),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [LibraryHandler()]
    root.setLevel(max(number, logging.WARNING))


def log_processors(format_: str) -> list[Processor]:
    """From an event to its line. Tracebacks hold no local variables: those hold tokens and keys."""
    last: list[Processor]
    if format_ == "json":
        traces = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        last = [traces, structlog.processors.JSONRenderer()]
    else:
        last = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        *last,
    ]


class LibraryHandler(logging.Handler):
    """Records of libraries as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """One event. A request that is no HTTP is told without its text, which may hold a token."""
        log = structlog.get_logger(record.name)
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            kind = type(error).__name__
            log.info("request refused", reason=Reason.REQUEST_MALFORMED, kind=kind, status=error.code)
            return
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
