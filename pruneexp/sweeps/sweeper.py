"""Hydra's side of a sweep: from the words behind `prune-run -m` to runs, and from runs to a launcher's jobs."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pruneexp.composing import OF_SWEEPS, config_message, to_config, typed
from pruneexp.config import Config, ConfigError, dense_config
from pruneexp.locks import held
from pruneexp.naming import run_hash
from pruneexp.sweeps.cells import Cell, Table, plain
from pruneexp.sweeps.entries import Entry
from pruneexp.sweeps.launchers import kind_of, limit, places
from pruneexp.sweeps.state import STAMP, Board, SomeFailed
from pruneexp.sweeps.tables import expand, file_name
from pruneexp.whole_files import write_json


class GridSweeper(Sweeper):
    """Runs a grid, a table or a search, skipping what is finished."""

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.context: HydraContext | None = None
        self.launcher: Launcher | None = None
        self.places: int | None = None  # for jobs side by side; None if that is the launcher's business
        self.visible = int(os.environ.get("RANK", "0")) == 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """As Hydra calls it, before `sweep`."""
        from hydra.core.plugins import Plugins

        self.config, self.context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs what the words behind `prune-run -m` ask for.

        Raises:
            ConfigError: they are no sweep.
            SomeFailed, Stopped: as they say.
        """
        given = self._given(arguments)
        node = OmegaConf.to_container(self.config.table) if "table" in self.config else None
        name = self.config.hydra.runtime.choices.get("table") if node else None
        table = expand(name, node, self.config.size, given)
        name = file_name(table, node, given)
        own = {"group": name} if "group" not in given else {}
        if table.folder and "experiment_name" not in given:
            own["experiment_name"] = table.folder
        table = table.with_overrides(own)
        self.places = places(self.launcher, self.config.device, self.config.sweep.jobs_per_gpu)
        if "search" in self.config:
            table, name = self._searched(table, name), f"{name}-search"
        self._run(table, name)

    def _run(self, table: Table, name: str) -> None:
        """Runs the cells of a table. name: of the sweep file, without its ending."""
        from pruneexp.sweeps.sweep import sweep_file

        entries, index = self.entries(table.cells)
        path = self._folder(entries) / f"{name}.sweep.json"
        start = time.strftime(STAMP)

        def record() -> None:
            if self.visible:
                path.parent.mkdir(parents=True, exist_ok=True)
                about = {"version": 1, "table": table.name, "size": table.size, **table.about}
                about |= {"rows": table.rows, "columns": table.columns, "start": start, "updated": time.strftime(STAMP)}
                about["command"] = [typed(word) for word in sys.argv[1:]]
                write_json(path, sweep_file(entries, table.cells, index, path.parent, about))

        self.run_entries(entries, record)
        failed = [entry for entry in entries if entry.state == "failed"]
        if self.visible:
            print(f"table    prune-report {path}")
        if failed:
            bad_input = all(entry.bad_input for entry in failed)
            raise SomeFailed([_complaint(entry) for entry in failed], len(entries), bad_input=bad_input)

    def _searched(self, table: Table, name: str) -> Table:
        """The table with the options in its cells that a search finds best; says what it found."""
        from pruneexp.sweeps.search import Search
        from pruneexp.sweeps.search_display import show

        options = OmegaConf.to_container(self.config.search)
        folder = self._folder(self.entries(table.cells)[0]) / f"{name}.search"
        search = Search(table, folder, options, entries_of=lambda cells: self.entries(cells)[0], run=self.run_entries)
        with held(folder, wait=False):
            cells = search.run(self.places or 1)
        if self.visible:
            show(folder / "results.json")
        if not cells:
            raise ConfigError(f"search: no trial came to an end; {folder / 'results.json'} has their errors")
        return replace(table, cells=cells)

    def run_entries(self, entries: list[Entry], record: Callable[[], None] = lambda: None) -> None:
        """Runs entries until each is done or failed, or a signal comes. record: called whenever a state has changed."""
        from pruneexp.sweeps.sweep import Sweep

        options, kind = self.config.sweep, kind_of(self.launcher)
        board = Board.new(Path(self.config.output_dir).absolute())
        left = [entry for entry in entries if entry.state == "left"]
        at_once = max(1, min(self.places or len(left), len(left)))
        limit(self.launcher, at_once)
        if kind == "processes":
            board.tell(jobs_per_gpu=options.jobs_per_gpu, one_of_several=True)
        if kind != "here":
            _stagger(left)

        def launch(batch: Sequence[Entry]) -> None:
            where = str(board.folder).replace("'", "\\'")
            jobs = [[*entry.words, f"sweep.board='{where}'", f"sweep.job={entry.number}"] for entry in batch]
            self.launcher.launch(jobs, initial_job_idx=batch[0].number)

        try:
            record()
            sweep = Sweep(entries, launch, board, kind=kind, fail_fast=options.fail_fast, record=record)
            sweep.run(at_once=at_once, visible=self.visible)
        finally:
            record()
            board.remove()

    def _folder(self, entries: list[Entry]) -> Path:
        """The folder of all runs, or `output_dir` where there are several."""
        folders = {entry.folder.parent for entry in entries if entry.folder}
        return folders.pop() if len(folders) == 1 else Path(self.config.output_dir)

    def entries(self, cells: Sequence[Cell]) -> tuple[list[Entry], list[int]]:
        """The runs of the cells, and the index of each cell's run. Cells with the same run share it.

        Raises:
            ConfigError: no cell is valid, all for the same reason.
        """
        entries: dict[Any, Entry] = {}
        index = []
        for cell in cells:
            words = cell.words()
            entry = Entry(len(entries), cell.label(), words)
            try:
                entry.config = self.composed(words)
                entry.look()
            except (ValueError, HydraException, OmegaConfBaseException) as error:
                entry.state, entry.error, entry.bad_input = "failed", config_message(error), True
            key = entry.folder or tuple(words)
            entries.setdefault(key, entry)
            index.append(entries[key].number)
        problems = {entry.error for entry in entries.values()}
        if len(problems) == 1 and None not in problems:
            raise ConfigError(problems.pop())
        return list(entries.values()), index

    def composed(self, words: list[str]) -> Config:
        """The config of the run that `prune-run <words>` would start."""
        composed = self.context.config_loader.load_sweep_config(self.config, words)
        state = HydraConfig.instance()
        before = state.cfg
        state.set_config(composed)  # for ${hydra:...} in it
        try:
            with open_dict(composed):
                choices = composed.pop("hydra").runtime.choices
            return to_config(composed, choices, words)
        finally:
            state.cfg = before

    def _given(self, arguments: list[str]) -> dict[str, list[str]]:
        """The options of the runs: key -> values."""
        given = {}
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        for override in parser.parse_overrides(arguments):
            key = override.get_key_element()
            if not override.is_sweep_override():
                values = [override.get_value_element_as_str()]
            elif override.is_discrete_sweep():
                values = list(override.sweep_string_iterator())
            else:
                raise ConfigError(f"{key}: want a list of values; to search in an interval, see search=optuna")
            if plain(key).partition(".")[0] not in OF_SWEEPS:
                given[key] = values
            elif len(values) > 1:
                raise ConfigError(f"{key}={','.join(values)}: takes one value at a time")
        return given


def _stagger(entries: list[Entry]) -> None:
    """Lets runs that need different dense runs begin first, so that few wait while one trains a dense run for them."""
    seen: dict[str, int] = {}
    for entry in entries:
        if entry.trains_dense:
            dense = run_hash(dense_config(entry.config))
            entry.turn = seen.get(dense, 0)
            seen[dense] = entry.turn + 1


def _complaint(entry: Entry) -> str:
    """What is wrong with a failed run, in a line."""
    log = entry.folder / "log.txt" if entry.folder else None
    return f"{entry.label}: {entry.error}" + (f"; log: {log}" if log and log.is_file() else "")
