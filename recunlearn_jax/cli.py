"""The command line, `recunlearn COMMAND`.

Options are parsed before jax is imported, so a mistake in them is reported at once. Exit codes: 0 done, 1 an audit found something, 2 a
mistake the user can fix, 70 a defect of this program, with its traceback, 130 interrupted. Compiled programs are kept in
~/.cache/recunlearn_jax for the next call (JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false turns this
off).
"""

import os
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import tyro

from recunlearn_jax.commands.data import Data
from recunlearn_jax.commands.judging import Audit, Compare, Report, ShowLedger
from recunlearn_jax.commands.making import Grow, Import, Train, Unlearn
from recunlearn_jax.commands.serving import Evaluate, Recommend, ShowSettings
from recunlearn_jax.commands.streaming import Stream
from recunlearn_jax.errors import InputError, Note, readable
from recunlearn_jax.process import keep_compiled_programs, keep_float32_products, keep_freed_memory

COMMANDS = {
    "data": Data,
    "train": Train,
    "import": Import,
    "grow": Grow,
    "unlearn": Unlearn,
    "evaluate": Evaluate,
    "recommend": Recommend,
    "compare": Compare,
    "stream": Stream,
    "audit": Audit,
    "report": Report,
    "ledger": ShowLedger,
    "settings": ShowSettings,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    keep_compiled_programs()
    keep_float32_products()
    keep_freed_memory()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", Note)
            warnings.showwarning = _show_note
            return _parsed(words).run() or 0
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        code, sentence = _told(error)
        print(f"recunlearn: {sentence}" if sentence else traceback.format_exc(), file=sys.stderr)
        return code


def _told(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence; no sentence for a defect of this program."""
    match error:
        case InputError():
            return 2, str(error)
        case KeyboardInterrupt():
            return 130, "interrupted; train, grow, compare and stream go on from where they were"
        case OSError():  # about a path given to a command, such as a name that is too long
            place = readable(str(error.filename), 200) if error.filename else "the system"
            return 2, f"{place}: {error.strerror or error}"
        case _ if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):  # the device's, as XLA says it
            return 2, f"there is not enough memory for this ({readable(str(error), 200)})"
    return 70, ""


def _parsed(words: list[str]) -> Any:
    if words[:2] == ["data", "prepare"]:
        from recunlearn_jax.commands.prepare import Prepare

        return tyro.cli(Prepare, prog="recunlearn data prepare", args=words[2:])
    return tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="recunlearn", description=__doc__, args=words)


def _show_note(message, category, filename, lineno, file=None, line=None) -> None:
    """Show a note as a sentence, any other warning as Python does."""
    text = (
        f"note: {message}\n"
        if issubclass(category, Note)
        else warnings.formatwarning(message, category, filename, lineno, line)
    )
    sys.stderr.write(text)


def entry() -> None:
    """Entry point of the console script."""
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if code and any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stderr.flush()
        os._exit(code)  # threads of the checkpoint writer that wait for a full disk would never end
    sys.exit(code)


if __name__ == "__main__":
    entry()
