"""How a command ends: from what it raised to its exit code and its one line on stderr."""

from __future__ import annotations

import contextlib
import logging

import click

from nas.command.terminal import echo, one_line
from nas.process import interrupts
from search_space.errors import InputError, WorkFailed

log = logging.getLogger("nas")


def outcome(error: BaseException, debug: bool) -> int:
    """Say what ended the command and return its exit code.

    debug: a defect, an error that nobody foresaw, is raised again with its traceback.
    """
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return _stopped(error.__cause__ if isinstance(error, click.Abort) else error)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if not isinstance(error, Exception):
        raise error
    if interrupts.asked():
        # Taken for the signal's effect: what the command waited for may have got it, too.
        return _stopped(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        echo(error.ctx.get_help() if error.ctx else error.format_message())
        return 2
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "nas"
        return fail(f"{error.format_message().rstrip('.')}; see: {command} --help", 2)
    if isinstance(error, click.ClickException):
        return fail(error.format_message(), 2)
    if isinstance(error, InputError):
        return fail(str(error), 2)
    if isinstance(error, WorkFailed):
        return fail(str(error), 1)
    if isinstance(error, BrokenPipeError):
        return 1
    if debug:
        raise error
    log.debug("unexpected", exc_info=error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return fail(f"{place}{error.strerror or error} (nas --debug shows where)", 1)
    if reason := getattr(error, "orig", None):  # a database driver's error, in its own words
        return fail(f"the database failed: {str(reason).strip().splitlines()[0]}", 1)
    return fail(f"{type(error).__name__}: {error} (nas --debug shows where)", 1)


def fail(message: str, code: int) -> int:
    """Print the one line; returns `code`."""
    with contextlib.suppress(OSError):  # a closed terminal: nobody is left to read it
        echo(f"Error: {one_line(message)}", err=True)
    return code


def _stopped(reason: BaseException | None) -> int:
    text = str(reason) if reason is not None else ""
    return fail(f"stopped; {text}" if text else "stopped", interrupts.STOPPED)
