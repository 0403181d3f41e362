"""Searching for options. The runs here are formulas; nothing is trained."""

import json

import pytest

from pruneexp.config import ConfigError
from pruneexp.sweeps.entries import Entry
from pruneexp.sweeps.search import Search, score
from pruneexp.sweeps.space import distributions
from pruneexp.sweeps.tables import expand

optuna = pytest.importorskip("optuna")

OPTIONS = {
    "trials": 12,
    "sampler": "tpe",
    "seed": 0,
    "batch": 1,
    "metric": None,
    "space": {"method": {"tau": "uniform(0, 1)"}},
}


class Runs:
    """Validation is best at tau = 0.7 and better with seed 2; the test score says the opposite."""

    def __init__(self, folder, *, fails=lambda tau: False, stops_after=None):
        self.folder, self.fails, self.stops_after = folder, fails, stops_after
        self.trained = []

    def entries_of(self, cells):
        entries = []
        for number, cell in enumerate(cells):
            entry = Scored(number, cell.label(), cell.words(), cell.overrides, self.folder)
            if (entry.folder / "summary.json").is_file():
                entry.state = "done"
            entries.append(entry)
        return entries

    def run(self, entries):
        for entry in entries:
            if entry.state == "done":
                continue
            if self.stops_after is not None and len(self.trained) >= self.stops_after:
                raise KeyboardInterrupt
            self.trained.append(entry.label)
            tau = float(entry.options["method.tau"])
            if self.fails(tau):
                entry.state, entry.error = "failed", "the loss is not finite"
                continue
            goodness = 1 - (tau - 0.7) ** 2 + (0.1 if entry.options.get("seed") == "2" else 0.0)
            entry.folder.mkdir(parents=True)
            rows = [{"step": 1, "validation/accuracy": 9.0}, {"step": 2, "validation/accuracy": goodness}]
            (entry.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            summary = {"headline": {"name": "accuracy", "value": -goodness}, "test": {"accuracy": -goodness}}
            (entry.folder / "summary.json").write_text(json.dumps(summary))
            entry.state = "done"


class Scored(Entry):
    def __init__(self, number, label, words, options, base):
        super().__init__(number, label, words)
        self.options, self.base = options, base

    @property
    def folder(self):
        return self.base / "-".join(f"{key}={value}" for key, value in sorted(self.options.items()))


def searched(tmp_path, runs, given=None, **options):
    table = expand(None, None, "full", given or {"seed": ["1", "2"]})
    folder = tmp_path / "search"
    folder.mkdir(exist_ok=True)
    search = Search(table, folder, {**OPTIONS, **options}, entries_of=runs.entries_of, run=runs.run)
    return search.run(at_once=1)


def results(tmp_path):
    return json.loads((tmp_path / "search" / "results.json").read_text())


def test_the_best_on_validation_at_the_end_is_chosen_as_a_mean_over_seeds(tmp_path):
    cells = searched(tmp_path, Runs(tmp_path))
    assert [cell.seed for cell in cells] == [1, 2]
    assert float(cells[0].overrides["method.tau"]) == pytest.approx(0.7, abs=0.15)
    assert cells[0].overrides["method.tau"] == cells[1].overrides["method.tau"]
    (study,) = results(tmp_path)["studies"]
    assert len(study["trials"]) == 12
    best = study["trials"][0]
    expected = 1 - (best["options"]["method.tau"] - 0.7) ** 2
    assert best["scores"] == pytest.approx([expected, expected + 0.1])
    assert best["validation"] == pytest.approx(expected + 0.05)
    assert [trial["validation"] for trial in study["trials"]] == sorted(
        (trial["validation"] for trial in study["trials"]), reverse=True
    )
    assert set(best) == {"trial", "options", "validation", "folders", "scores"}


def test_every_cell_but_for_its_seeds_has_a_study_of_its_own(tmp_path):
    cells = searched(tmp_path, Runs(tmp_path), {"model": ["a", "b"], "seed": ["1", "2"]}, trials=3)
    assert {(cell.row.label, cell.seed) for cell in cells} == {(f"model={m}", seed) for m in "ab" for seed in (1, 2)}
    studies = results(tmp_path)["studies"]
    assert [(study["row"], len(study["trials"])) for study in studies] == [("model=a", 3), ("model=b", 3)]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_stopped_search_goes_on_with_the_trial_it_was_at(tmp_path, sampler):
    first = Runs(tmp_path, stops_after=7)  # in the middle of the fourth trial
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, first, sampler=sampler)
    second = Runs(tmp_path)
    searched(tmp_path, second, sampler=sampler)
    assert len(first.trained) + len(second.trained) == 24
    assert "seed 2" in second.trained[0]
    trials = results(tmp_path)["studies"][0]["trials"]
    assert len({trial["options"]["method.tau"] for trial in trials}) == len(trials) == 12
    third = Runs(tmp_path)
    searched(tmp_path, third, sampler=sampler)
    assert third.trained == []
    searched(tmp_path, third, sampler=sampler, trials=13)
    assert len(third.trained) == 2


def test_a_failed_trial_is_told_and_never_chosen(tmp_path):
    runs = Runs(tmp_path, fails=lambda tau: tau > 0.5)
    cells = searched(tmp_path, runs)
    assert 0 < float(cells[0].overrides["method.tau"]) <= 0.5
    last = results(tmp_path)["studies"][0]["trials"][-1]
    assert (last["validation"], last["error"]) == (None, "the loss is not finite")
    (tmp_path / "all").mkdir()
    assert searched(tmp_path / "all", Runs(tmp_path / "all", fails=lambda tau: True), trials=2) == []


def test_hard_masks_count_where_there_are_soft_ones(tmp_path):
    row = {"validation/accuracy": 0.9, "validation_hard/accuracy": 0.4, "validation/loss": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "summary.json").write_text(json.dumps({"headline": {"name": "accuracy", "value": 1.0}}))
    finished = Fixed(tmp_path)
    assert score(finished, None) == 0.4
    assert score(finished, "loss") == 2.0
    with pytest.raises(ConfigError) as error:
        score(finished, "f1")
    assert str(error.value) == f"search.metric=f1: is no validation metric of {tmp_path}; want one of accuracy, loss"


class Fixed:
    def __init__(self, folder):
        self.folder = folder


def test_a_space_in_words():
    space = {"method": {"tau": "log(0.001, 0.1)", "steps": "int(1,9)"}, "budget": "choice(global, erk)"}
    found = distributions({**space, "optimizer.learning_rate": "uniform(0, 1)"})
    assert found == {
        "method.tau": optuna.distributions.FloatDistribution(0.001, 0.1, log=True),
        "method.steps": optuna.distributions.IntDistribution(1, 9),
        "optimizer.learning_rate": optuna.distributions.FloatDistribution(0.0, 1.0),
        "budget": optuna.distributions.CategoricalDistribution(["global", "erk"]),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": {}}, "search.space: is empty; name an option, as 'search.space.method.tau=log(0.001, 0.1)'"),
        ({"space": {"a": "0.1"}}, "search.space.a=0.1: want log(low, high), uniform(low, high)"),
        ({"space": {"a": "log(0, 1)"}}, "search.space.a=log(0, 1): want low < high, both positive"),
        ({"space": {"a": "int(1.5, 2)"}}, "search.space.a=int(1.5, 2): want two numbers"),
        ({"space": {"seed": "int(1, 2)"}}, "search.space.seed: is given a value as well; leave one of them out"),
        ({"sampler": "grid"}, "search.sampler=grid: want one of tpe, random"),
        ({"trials": 0}, "search.trials=0: want a whole number, at least 1"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError) as error:
        searched(tmp_path, Runs(tmp_path), **options)
    assert message in str(error.value)
