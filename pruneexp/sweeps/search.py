"""A search for the options that validate best, with Optuna: one study for each cell of a grid, seeds averaged.

Trials are runs like any other, in folders named by their options, so that nothing is trained twice. The studies are
kept in `<name>.search/study.log`; a search that was stopped goes on with the trials it was at. Test scores are never
read, nor shown.
"""

import hashlib
import importlib.util
import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruneexp.config import ConfigError, finished_summary
from pruneexp.sweeps.cells import Cell, Table
from pruneexp.sweeps.entries import Entry
from pruneexp.sweeps.space import distributions
from pruneexp.sweeps.state import progress
from pruneexp.whole_files import write_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

SAMPLERS = ("tpe", "random")


@dataclass
class Question:
    """A trial of a study, and the runs that answer it."""

    study: "Study"
    trial: "Trial"
    entries: list[Entry]


class Search:
    """Asks studies for trials and runs them.

    folder: of the search. options: as in configs/search/optuna.yaml. entries_of: the runs of cells. run: runs entries
    until each is done or failed.
    """

    def __init__(
        self,
        table: Table,
        folder: Path,
        options: dict[str, Any],
        *,
        entries_of: Callable[[Sequence[Cell]], list[Entry]],
        run: Callable[[list[Entry]], None],
    ) -> None:
        """Keeps the arguments.

        Raises:
            ConfigError: an option is wrong, or Optuna is missing.
        """
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError("search=optuna: is not installed; pip install 'pruneexp[search]'")
        self.table, self.folder, self.options = table, folder, options
        self.entries_of, self.run_entries = entries_of, run
        if options["sampler"] not in SAMPLERS:
            raise ConfigError(f"search.sampler={options['sampler']}: want one of {', '.join(SAMPLERS)}")
        for key in ("trials", "batch"):
            value = options[key]
            if (value is not None or key == "trials") and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"search.{key}={value}: want a whole number, at least 1")
        self.space = distributions(options["space"])
        places = [(cell.row.label, cell.column.label) for cell in table.cells]
        self.cells = {
            place: [cell for cell, own in zip(table.cells, places, strict=True) if own == place] for place in places
        }
        for cell in table.cells:
            twice = [option for option in self.space if option in cell.overrides]
            if twice:
                raise ConfigError(f"search.space.{twice[0]}: is given a value as well; leave one of them out")

    def run(self, at_once: int) -> list[Cell]:
        """The cells with the options found best, after all trials that are missing. at_once: places for runs."""
        space = hashlib.sha256(json.dumps(self.options["space"], sort_keys=True).encode()).hexdigest()[:8]
        studies = {place: self._study(" | ".join([*place, space])) for place in self.cells}
        runs_each = max(len(cells) for cells in self.cells.values())
        batch = self.options["batch"] or max(1, at_once // (len(studies) * runs_each))
        while True:
            asked = [
                self._ask(studies[place], cells)
                for place, cells in self.cells.items()
                for _ in range(min(batch, self.options["trials"] - _over(studies[place])))
            ]
            if not asked:
                break
            # Two trials may be the same run.
            entries = {entry.folder or id(entry): entry for question in asked for entry in question.entries}
            for number, entry in enumerate(entries.values()):
                entry.number = number
            self.run_entries(list(entries.values()))
            for question in asked:
                question.entries = [entries[entry.folder or id(entry)] for entry in question.entries]
                self._tell(question)
            write_json(self.folder / "results.json", self._results(studies))
        return list(
            itertools.chain.from_iterable(self._best(studies[place], cells) for place, cells in self.cells.items())
        )

    def _study(self, name: str) -> "Study":
        """The study of that name, new or as it stands; trials that a stopped search was at are asked for first."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(self.folder / "study.log")))
        direction = "minimize" if self.options["metric"] == "loss" else "maximize"
        study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
        for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.set_user_attr(f"again_{trial.number}", True)
            study.enqueue_trial(trial.params)
        # Another seed than that of the trials before, which it would only repeat.
        seed = self.options["seed"] + len(study.trials)
        if self.options["sampler"] == "tpe":
            study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        else:
            study.sampler = optuna.samplers.RandomSampler(seed=seed)
        return study

    def _ask(self, study: "Study", cells: list[Cell]) -> Question:
        trial = study.ask(self.space)
        entries = self.entries_of(_with(cells, trial.params))
        for entry in entries:
            entry.label, entry.blind = f"trial {trial.number}, {entry.label}", True
        return Question(study, trial, entries)

    def _tell(self, question: Question) -> None:
        """Tells the study how a trial's runs validate, the mean over seeds; a trial with a failed run has failed."""
        from optuna.trial import TrialState

        done = [entry for entry in question.entries if entry.state == "done"]
        scores = [score(entry, self.options["metric"]) for entry in done]
        folders = [str(entry.folder) for entry in question.entries]
        question.trial.set_user_attr("folders", folders)
        question.trial.set_user_attr("scores", scores)
        errors = [entry.error for entry in question.entries if entry.state == "failed"]
        if errors:
            question.trial.set_user_attr("error", errors[0])
        if len(scores) == len(question.entries):
            question.study.tell(question.trial, statistics.mean(scores))
        else:
            question.study.tell(question.trial, state=TrialState.FAIL)

    def _best(self, study: "Study", cells: list[Cell]) -> list[Cell]:
        best = next((trial for trial in ranked(study) if trial.value is not None), None)
        return _with(cells, best.params) if best else []

    def _results(self, studies: "dict[tuple[str, str], Study]") -> dict[str, Any]:
        """What results.json says."""
        return {
            "metric": self.options["metric"] or "the headline",
            "split": "validation",
            "space": self.options["space"],
            "studies": [
                {"row": place[0], "column": place[1], "trials": [_row(trial) for trial in ranked(study)]}
                for place, study in studies.items()
            ],
        }


def score(entry: Entry, metric: str | None) -> float:
    """What a finished run validates at its end, with hard masks where the method is soft.

    Raises:
        ConfigError: there is no such metric.
    """
    row = progress(entry.folder)
    name = metric or finished_summary(entry.folder)["headline"]["name"]
    for split in ("validation_hard", "validation"):
        if f"{split}/{name}" in row:
            return row[f"{split}/{name}"]
    known = ", ".join(sorted(key.partition("/")[2] for key in row if key.startswith("validation/")))
    raise ConfigError(f"search.metric={name}: is no validation metric of {entry.folder}; want one of {known}")


def ranked(study: "Study") -> "list[FrozenTrial]":
    """The trials of a study, the best first, those that failed last, without those that were begun again."""
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    known = [
        trial for trial in study.trials if f"again_{trial.number}" not in study.user_attrs and trial.state.is_finished()
    ]
    return sorted(known, key=lambda trial: (trial.value is None, sign * (trial.value or 0.0)))


def _row(trial: "FrozenTrial") -> dict[str, Any]:
    return {"trial": trial.number, "options": trial.params, "validation": trial.value, **trial.user_attrs}


def _over(study: "Study") -> int:
    """How many trials have an answer."""
    return len(ranked(study))


def _with(cells: Sequence[Cell], options: dict[str, Any]) -> list[Cell]:
    """The cells with these options."""
    words = {key: value if isinstance(value, str) else repr(value) for key, value in options.items()}
    return [replace(cell, overrides={**cell.overrides, **words}) for cell in cells]
