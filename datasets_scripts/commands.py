"""The command line of this package: how a command names itself, reads its arguments, and runs."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .endings import ending_well
from .names import did_you_mean
from .progress import set_up_output


def command_parser(description: str, **options) -> argparse.ArgumentParser:
    """A parser whose messages name the command as it was started, such as `action-llm-prepare`.

    Args:
        description: one sentence for the help.
        **options: further arguments of `ArgumentParser`.
    """
    module = sys.modules["__main__"].__spec__
    program = Path(sys.argv[0]).name if module is None else f"python -m {module.name}"
    return argparse.ArgumentParser(prog=program, description=description, **options)


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line. An unknown option ends the program first, with the nearest option that exists."""
    known = [option for option in parser._option_string_actions if option.startswith("--")]
    for argument in sys.argv[1:]:
        option = argument.partition("=")[0]
        if len(option) > 2 and option.startswith("--") and not any(name.startswith(option) for name in known):
            parser.error(f"there is no option {option}{did_you_mean(option, known)}")
    return parser.parse_args()


def run_command(parser: argparse.ArgumentParser, work: Callable[..., str], *, resumes: bool = True) -> None:
    """Calls `work` with the arguments of the command line and prints the text that it returns.

    Args:
        parser: of the command.
        work: takes every argument by its name.
        resumes: whether the same command continues a stopped run; messages then say so.
    """
    arguments = parse_arguments(parser)
    set_up_output()
    with ending_well(parser.prog, resumes):
        print(work(**vars(arguments)))
