"""Groups of commands: how help looks, and errors as one sentence and an exit code."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from typing import Any, NoReturn

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from vidssl.base.errors import VidsslError
from vidssl.base.files import system_sentence
from vidssl.base.text import printable
from vidssl.cli.console import progress_console

INTERRUPTED = 130
BROKEN_PIPE = 141
USAGE = 2


class PlainHelp:
    """Shows help alike in all releases of Typer: `VIDEOS` as an argument, not `{VIDEOS}`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the words of the usage line, arguments without braces."""
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [re.sub(r"^\{(.*)\}", r"\1", piece) for piece in pieces]

    def get_help_option(self, ctx: Any) -> Any:
        """Returns `--help` as an option that takes nothing."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.metavar = ""
        return option


class Command(PlainHelp, TyperCommand):
    """One command."""


class Group(PlainHelp, TyperGroup):
    """A command that has commands of its own."""


class Program(Group):
    """The whole program: turns errors meant for the user into one sentence and an exit code."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the options; those of shell completion, which typer adds, take nothing."""
        params: list[Any] = super().get_params(ctx)
        for option in params:
            if option.name in ("install_completion", "show_completion"):
                option.metavar = ""
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keeps the arguments, since an error is told as they ask: with --json, with -v."""
        ctx.meta["arguments"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was named."""
        arguments = ctx.meta["arguments"]
        try:
            return super().invoke(ctx)
        except VidsslError as error:
            _fail(arguments, str(error), error.exit_code)
        except BrokenPipeError:
            sys.stderr.close()  # the reader of a pipe has gone, as with `| head`
            raise typer.Exit(BROKEN_PIPE) from None
        except OSError as error:
            sentence = system_sentence(error)
            if sentence is None:
                raise  # not about a file or folder that the user could change
            _fail(arguments, sentence, 1)
        except KeyboardInterrupt:
            sentence = "interrupted; the same command goes on from what is finished"
            _fail(arguments, sentence, INTERRUPTED)
        except Exception as error:
            if hasattr(error, "format_message"):  # typer's own, of words that it cannot parse
                _fail_as_json(arguments, error.format_message(), getattr(error, "exit_code", USAGE))
            raise


def _fail_as_json(arguments: list[str], sentence: str, code: int) -> None:
    if "--json" not in arguments:
        return
    try:
        print(json.dumps({"error": sentence, "exit_code": code}), flush=True)
    except OSError:  # perhaps the very error to report; it must not be raised again at exit
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _fail(arguments: list[str], sentence: str, code: int) -> NoReturn:
    _fail_as_json(arguments, sentence, code)
    if "-v" in arguments or "--verbose" in arguments:
        for line in traceback.format_exc().splitlines():
            print(printable(line), file=sys.stderr)
    shown = Text.assemble(("vidssl: ", "bold red"), printable(sentence))
    progress_console().print(shown, soft_wrap=True)
    raise typer.Exit(code)
