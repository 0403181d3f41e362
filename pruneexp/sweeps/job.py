"""One job of a sweep: a run that keeps its output to itself and says how it goes where the sweep can read it."""

import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from pruneexp.config import Config
from pruneexp.leftovers import finished_earlier
from pruneexp.locks import Busy, held
from pruneexp.naming import run_folder
from pruneexp.sweeps.gpus import take_place, visible_gpus
from pruneexp.sweeps.state import Board

LOG_FILE = "log.txt"
"""In a run's folder: what the run said, with the traceback of an error; a resumed run goes on in it."""

Explain = Callable[[Exception], tuple[int, str | None]]
"""An exception -> the exit code of a single run that ended with it, and the line to print; None where there is none."""


def run_job(config: Config, overrides: list[str], *, board: Board, number: int, explain: Explain) -> dict[str, Any]:
    """What came of a run: `state` (done, failed, busy, stopped, left), and `error` of a failed one.

    overrides: the command line that would start it alone. number: of the job on the board.
    """
    told = board.told()
    if told.get("stop"):
        return {"state": "left"}
    if told.get("one_of_several"):  # Ctrl-C reaches all; the trainer takes note of it, and an idle process lives on
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    about = {"pid": os.getpid(), "host": socket.gethostname(), "start": time.time()}
    board.report(number, state="running", note="starting", **about)
    folder = run_folder(config)
    try:
        with (
            held(folder, wait=bool(told.get("wait")), on_wait=lambda busy: board.report(number, note=str(busy))),
            _output_in(folder) as log,
            _started_as(overrides),
        ):
            outcome = _result(config, board, number, explain)
            if log and outcome.get("bad_input") and not (folder / "config.yaml").is_file():
                log.unlink()  # nothing has been run
    except Busy as busy:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise  # the others have begun
        outcome = {"state": "busy", "error": str(busy)}
    board.report(number, end=time.time(), note=None, **outcome)
    return outcome


def _result(config: Config, board: Board, number: int, explain: Explain) -> dict[str, Any]:
    """What comes of a run whose folder we have; its traceback goes to where its output goes."""
    try:
        finished = finished_earlier(config)
        if finished is not None:  # by another process, since the sweep has looked
            return {"state": "done", "headline": finished["headline"], "start": None}
        _take_gpu(board, number, config["device"])
        board.report(number, note=None)
        from pruneexp.display import setup_logging
        from pruneexp.experiment import run

        setup_logging(visible=int(os.environ.get("RANK", "0")) == 0)
        if board.told().get("stop"):
            return {"state": "left"}
        _, summary = run(config)
    except KeyboardInterrupt:
        return {"state": "stopped", "exit_code": 130}
    except Exception as error:
        code, message = explain(error)
        if code >= 128:
            return {"state": "stopped", "exit_code": code}
        if message is None:
            traceback.print_exc()
        else:
            print(message, file=sys.stderr)
        last = traceback.format_exception_only(error)[-1]
        return {"state": "failed", "error": " ".join((message or last).split()), "bad_input": code == 2}
    return {"state": "done", "headline": summary["headline"]}


def _take_gpu(board: Board, number: int, device: str) -> None:
    """Gives this process its GPU, if it is one of several on this machine and the user has named none."""
    places = board.told().get("jobs_per_gpu")
    if places is None or device not in ("auto", "cuda"):
        return
    import torch

    gpus = visible_gpus(torch.cuda.device_count())
    take_place(gpus, places, on_wait=lambda: board.report(number, note="waiting for a GPU"))


@contextmanager
def _output_in(folder: Path) -> Iterator[Path | None]:
    """A context whose output goes to the end of the log in `folder`, or nowhere where this is not the main process."""
    log = folder / LOG_FILE if int(os.environ.get("RANK", "0")) == 0 else None
    logger = logging.getLogger("pruneexp")
    handlers, level = list(logger.handlers), logger.level
    with (
        Path(log or os.devnull).open("a", buffering=1, encoding="utf-8") as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        try:
            yield log
        finally:
            logger.handlers = handlers
            logger.setLevel(level)


@contextmanager
def _started_as(overrides: list[str]) -> Iterator[None]:
    """A context in which the command line is the one that starts this run alone, for the run's meta.json."""
    before = sys.argv
    sys.argv = ["prune-run", *overrides]
    try:
        yield
    finally:
        sys.argv = before
