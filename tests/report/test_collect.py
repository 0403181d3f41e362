"""Which folders are runs; whatever else lies there is named with the reason, and never raises."""

import json
import os
import shutil

import pytest

from pruneexp.report.collect import find_runs


def found(*places):
    result = find_runs([str(place) for place in places])
    return {run.folder.name for run in result.runs}, {
        one.folder.name: (one.kind, one.reason) for one in result.left_out
    }


def test_runs_are_found_at_any_depth_once_and_by_globs(make_run, tmp_path):
    first = make_run(folder=tmp_path / "a" / "b" / "one")
    make_run(folder=tmp_path / "two", seed=2)
    os.symlink(first, tmp_path / "link")
    assert found(tmp_path) == ({"one", "two"}, {})
    assert found(first) == ({"one"}, {})
    assert found(tmp_path / "t*", tmp_path / "two") == ({"two"}, {})


def test_what_lies_inside_a_run_is_no_run_of_its_own(make_run, tmp_path):
    run = make_run(folder=tmp_path / "run")
    shutil.copytree(run, tmp_path / "copy")
    shutil.move(tmp_path / "copy", run / "export")
    (run / "export" / "summary.json").rename(run / "export" / "export.json")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "summary.json").write_text("{")
    result = find_runs([str(tmp_path)])
    assert [one.folder for one in result.runs] == [run] and not result.left_out
    assert result.runs[0].export["headline"]["value"] == 0.5


def test_unfinished_runs_say_how_far_they_are(make_run, tmp_path):
    make_run(folder=tmp_path / "half", finished=False)
    make_run(folder=tmp_path / "begun", finished=False, seed=2)
    (tmp_path / "begun" / "metrics.jsonl").unlink()
    make_run(folder=tmp_path / "cut", finished=False, seed=3)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "epoch"')
    runs, left_out = found(tmp_path)
    assert not runs
    assert left_out == {
        "half": ("unfinished", "running or interrupted at step 10 of 20"),
        "begun": ("unfinished", "running or interrupted before its first evaluation"),
        "cut": ("unfinished", "running or interrupted at step 10 of 20"),
    }


BROKEN = [
    ("summary.json", b"", "summary.json cannot be read"),
    ("summary.json", b'{"headline": ', "summary.json cannot be read"),
    ("summary.json", b"[" * 100_000, "summary.json cannot be read"),
    ("summary.json", b"\xff\xfe\x00", "summary.json cannot be read"),
    ("summary.json", b"[1, 2]", "summary.json cannot be read: is no JSON object"),
    ("summary.json", b"{}", "summary.json has no headline.name"),
    ("summary.json", b'{"headline": {"name": "accuracy", "value": "high"}}', "summary.json has no headline.value"),
    ("summary.json", b'{"headline": {"name": "accuracy", "value": 1}}', "summary.json has no sparsity.prunable"),
    ("config.yaml", b"method: [", "config.yaml cannot be read"),
    ("config.yaml", b"!!python/object/apply:os.system ['touch /tmp/never']", "config.yaml cannot be read"),
    ("config.yaml", b"\xff\xff", "config.yaml cannot be read"),
]


@pytest.mark.parametrize(("file", "content", "reason"), BROKEN, ids=range(len(BROKEN)))
def test_damaged_files_are_named(make_run, tmp_path, file, content, reason):
    make_run(folder=tmp_path / "good", seed=2)
    (make_run(folder=tmp_path / "bad") / file).write_bytes(content)
    runs, left_out = found(tmp_path)
    assert runs == {"good"}
    kind, why = left_out["bad"]
    assert kind == "broken" and why.startswith(reason) and "\n" not in why


def test_folders_of_others_are_foreign(make_run, tmp_path):
    for name, files in {
        "theirs": {"config.yaml": "model: resnet\n", "summary.json": "{}"},
        "list": {"config.yaml": "- 1\n"},
        "wandb": {"summary.json": "{}"},
        "notes": {"readme.txt": "hello"},
    }.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content)
    make_run(folder=tmp_path / "theirs" / "outputs" / "inner")
    runs, left_out = found(tmp_path)
    assert {name: kind for name, (kind, _) in left_out.items()} == {
        "theirs": "foreign",
        "list": "foreign",
        "wandb": "foreign",
    }
    assert not runs  # a foreign summary.json marks a run's folder, whose inside is its own
    (tmp_path / "theirs" / "summary.json").unlink()
    assert found(tmp_path)[0] == {"inner"}


def test_a_copy_of_a_run_counts_once_and_the_later_one(make_run, tmp_path):
    make_run(0.1, folder=tmp_path / "old")
    make_run(0.2, folder=tmp_path / "new")
    make_run(0.3, folder=tmp_path / "other", seed=2)
    runs, left_out = found(tmp_path)
    assert runs == {"new", "other"}
    assert left_out["old"] == ("duplicate", f"same options and seed as {tmp_path / 'new'}")


def test_files_beside_the_summary_may_be_missing_or_damaged(make_run, tmp_path):
    run = make_run(folder=tmp_path / "run")
    for name in ("meta.json", "metrics.jsonl", "layers.csv"):
        (run / name).write_bytes(b"\xff{")
    (run / "export").mkdir()
    (run / "export" / "export.json").write_text("[]")
    (one,) = find_runs([str(tmp_path)]).runs
    assert (one.meta, one.export, one.rows, one.commit, one.command) == ({}, {}, [], "", "")
    assert one.layers == []


def test_the_hash_is_the_end_of_the_name(make_run, tmp_path):
    make_run(folder=tmp_path / "pdp-resnet20-digits-s0.9-seed1-0a1b2c3d")
    make_run(folder=tmp_path / "renamed", seed=2)
    assert {run.hash for run in find_runs([str(tmp_path)]).runs} == {"0a1b2c3d", "renamed"}


@pytest.mark.parametrize(
    ("place", "message"), [("nowhere", "no such folder"), ("none*", "no such folder"), ("", "no runs there")]
)
def test_places_without_runs(tmp_path, place, message):
    (tmp_path / "file.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=message):
        find_runs([str(tmp_path / place)])
