import inspect
import logging
import struct
import sys
import zlib

import pytest

from pruneexp.loggers.base import Logger
from pruneexp.loggers.wandb import WandB, _flat
from shared.wandb_offline import BLOCK, FIRST, FULL, LAST, chunks, offline_runs

CONFIG = {"seed": 1, "method": {"_target_": "a.B", "betas": [0.9, 0.999]}, "dataset": None}
SUMMARY = {
    "headline": {"name": "accuracy", "value": 0.75, "split": "test"},
    "dense": None,
    "seed": 1,
    "info": {"metrics": ("accuracy",)},
}
SETTINGS = {"project": "p", "entity": None, "tags": ["smoke"], "log_model": False}


@pytest.fixture(autouse=True, scope="module")
def no_account(tmp_path_factory):
    """No key anywhere, nothing written outside the temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("NETRC", str(home / "netrc"))
        for name in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(home))
        yield
        import wandb

        wandb.teardown()


@pytest.fixture
def warnings():
    """The messages that reach the root logger, which is what a console shows."""

    class Collect(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    messages, handler, root = [], Collect(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield messages
    root.removeHandler(handler)
    root.setLevel(level)


def start(folder, *, resumed_from=None, mode="offline", **changes):
    folder.mkdir(exist_ok=True)
    logger = WandB(**SETTINGS | {"mode": mode} | changes)
    logger.start(name=folder.name, group="sweep", folder=folder, config=CONFIG, resumed_from=resumed_from)
    return logger


def lines(count, first=0):
    """Lines of metrics.jsonl, long enough that they do not fit into one block of the file."""
    padding = {f"threshold/layer{layer}": layer / 7 for layer in range(40)}
    return [
        {"step": 10 * i, "epoch": i / 2, "sparsity/prunable": i / count, "validation/accuracy": 1 - i / 50, "loss": 1.5}
        | padding
        for i in range(first, count)
    ]


def test_a_record_that_begins_with_the_last_seven_bytes_of_a_block_is_read():
    """The reader of these tests: the format has an empty first chunk there."""

    def chunk(kind, payload):
        return struct.pack("<IHB", zlib.crc32(payload, zlib.crc32(bytes([kind]))), len(payload), kind) + payload

    filling = bytes(BLOCK - 3 * 7)  # after the file's header and its own, before the next
    data = b":W&B" + bytes(3) + chunk(FULL, filling) + chunk(FIRST, b"") + chunk(LAST, b"two") + chunk(FULL, b"three")
    assert list(chunks(data)) == [filling, b"two", b"three"]


def test_an_offline_run_holds_what_was_logged(tmp_path, warnings):
    from PIL import Image

    folder = tmp_path / "pdp-resnet20"
    logger = start(folder)
    for line in lines(30):
        logger.log(line)
    Image.new("RGB", (8, 8)).save(folder / "accuracy_vs_sparsity.png")
    logger.finish(SUMMARY, folder)
    logger.close(0)
    logger.close(0)

    (run,) = offline_runs(folder)
    assert run.history[:30] == lines(30)
    assert run.config == CONFIG
    assert (run.run.display_name, run.run.run_group, run.run.project, list(run.run.tags)) == (
        "pdp-resnet20",
        "sweep",
        "p",
        ["smoke"],
    )
    assert {key: run.summary[key] for key in SUMMARY} == SUMMARY | {"info": {"metrics": ["accuracy"]}}
    assert run.summary["validation/accuracy"] == 1 - 29 / 50
    assert (
        run.history[30]["result/_type"] == "table-file"
        and run.history[30]["accuracy_vs_sparsity/_type"] == "image-file"
    )
    assert run.step_metrics["validation/accuracy"] == "sparsity/prunable"
    assert run.step_metrics["sparsity/prunable"] == run.step_metrics["loss"] == "step"
    assert "step" not in run.step_metrics
    assert run.exit_codes == [0] and not warnings


def test_two_runs_of_one_process_stay_apart(tmp_path):
    first, second = start(tmp_path / "a"), start(tmp_path / "b")
    first.log({"step": 0, "sparsity/prunable": 0.0})
    second.log({"step": 0, "sparsity/prunable": 0.5})
    first.log({"step": 1, "sparsity/prunable": 0.1})
    first.close(1)
    second.close(0)
    (a,), (b,) = offline_runs(tmp_path / "a"), offline_runs(tmp_path / "b")
    assert a.history == [{"step": 0, "sparsity/prunable": 0.0}, {"step": 1, "sparsity/prunable": 0.1}]
    assert b.history == [{"step": 0, "sparsity/prunable": 0.5}]
    assert a.run.run_id != b.run.run_id and (a.exit_codes, b.exit_codes) == ([1], [0])


def test_a_resumed_run_keeps_its_id_and_a_new_start_does_not(tmp_path):
    for resumed_from in (None, 10, None):
        logger = start(tmp_path / "run", resumed_from=resumed_from)
        logger.log({"step": 10, "sparsity/prunable": 0.5})
        logger.close(0)
    first, resumed, anew = (run.run.run_id for run in offline_runs(tmp_path / "run"))
    assert first == resumed != anew
    assert (tmp_path / "run" / "wandb_id").read_text().strip() == anew


def test_the_model_is_an_artifact_only_if_asked(tmp_path):
    for name, log_model in (("with", True), ("without", False)):
        logger = start(tmp_path / name, log_model=log_model)
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        logger.finish(SUMMARY, tmp_path / name)
        logger.close(0)
    (run,) = offline_runs(tmp_path / "with")
    (artifact,) = [artifact for artifact in run.artifacts if artifact.type == "model"]
    (file,) = artifact.manifest.contents
    assert (file.path, file.local_path) == ("model.safetensors", str(tmp_path / "with" / "model.safetensors"))
    (run,) = offline_runs(tmp_path / "without")
    assert not [artifact for artifact in run.artifacts if artifact.type == "model"]


def test_auto_is_offline_without_a_key_and_says_nothing(tmp_path, warnings, capfd):
    start(tmp_path / "run", mode="auto").close(0)
    assert len(offline_runs(tmp_path / "run")) == 1 and not warnings
    assert capfd.readouterr() == ("", "")


def test_online_without_a_key_asks_nothing_and_records_offline(tmp_path, warnings, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    start(tmp_path / "run", mode="online").close(0)
    assert len(offline_runs(tmp_path / "run")) == 1
    assert warnings == ["W&B records this run offline: no key is configured; `wandb login` sets one"]


@pytest.fixture
def calls(monkeypatch):
    """The keyword arguments of each wandb.init, which starts nothing; a key is configured and accepted."""
    import wandb

    calls = []
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "init", lambda **arguments: calls.append(arguments))
    return calls


def test_auto_is_online_with_a_key_and_resumes(tmp_path, calls):
    start(tmp_path / "run", mode="auto")
    start(tmp_path / "run", mode="auto", resumed_from=20)
    assert [(call["mode"], call["resume"], call["reinit"]) for call in calls] == [
        ("online", None, "create_new"),
        ("online", "allow", "create_new"),
    ]
    assert calls[0]["id"] == calls[1]["id"] and calls[0]["dir"] == str(tmp_path / "run")


def test_auto_follows_the_settings_of_the_sdk(tmp_path, calls, monkeypatch):
    import wandb

    for setting, modes in (("disabled", []), ("dryrun", ["offline"]), ("offline", ["offline"]), ("run", ["online"])):
        monkeypatch.setattr(wandb.setup().settings, "mode", setting)
        calls.clear()
        start(tmp_path / "run", mode="auto")
        assert [call["mode"] for call in calls] == modes


def test_a_server_that_cannot_be_reached_means_offline(tmp_path, calls, warnings, monkeypatch):
    import wandb

    def login(**_):
        raise wandb.errors.AuthenticationError("no route\nto host")

    monkeypatch.setattr(wandb, "login", login)
    start(tmp_path / "run", mode="auto")
    assert [call["mode"] for call in calls] == ["offline"]
    assert warnings == ["W&B records this run offline: no route"]


def test_disabled_touches_nothing(tmp_path, calls):
    logger = start(tmp_path / "run", mode="disabled")
    logger.log({"step": 0})
    logger.finish(SUMMARY, tmp_path / "run")
    logger.close(0)
    assert not calls and not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    "broken", ["setup", "init", "Run.define_metric", "Run.log", "Table", "Run.log_artifact", "Run.finish"]
)
def test_a_broken_sdk_ends_the_mirror_with_one_warning(tmp_path, warnings, monkeypatch, broken):
    import wandb

    def fail(*_, **__):
        raise RuntimeError("out of order\nmore")

    owner, _, name = broken.rpartition(".")
    run = None
    with monkeypatch.context() as patch:
        patch.setattr(wandb.Run if owner else wandb, name, fail)
        logger = start(tmp_path / "run", log_model=True)
        run = logger._run
        for line in lines(2):
            logger.log(line)
        logger.finish(SUMMARY, tmp_path / "run")
        logger.close(0)
        logger.log({"step": 99})
        logger.close(0)
    assert warnings == ["W&B is switched off for this run: RuntimeError: out of order"]
    if broken == "Run.finish":
        run.finish()
    elif run is not None:
        assert offline_runs(tmp_path / "run")[0].exit_codes == [1]


def test_nothing_is_raised_where_nothing_was_started(tmp_path):
    logger = WandB(**SETTINGS | {"mode": "offline"})
    logger.log({"step": 0})
    logger.finish(SUMMARY, tmp_path)
    logger.close(1)


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, warnings):
    logger = WandB(**SETTINGS | {"mode": "offline"})
    logger.start(name="n", group="g", folder=tmp_path / "missing", config={}, resumed_from=None)
    logger.log({"step": 0})
    assert len(warnings) == 1


def test_an_unknown_mode_is_named():
    with pytest.raises(
        ValueError, match=r"^logger.mode=on: no such mode; choose one of auto, online, offline, disabled$"
    ):
        WandB(**SETTINGS | {"mode": "on"})


@pytest.mark.parametrize("name", ["start", "log", "finish", "close"])
def test_the_signatures_are_those_of_the_contract(name):
    assert inspect.signature(getattr(WandB, name)) == inspect.signature(getattr(Logger, name))


def test_nested_values_are_joined_and_lists_left_out():
    assert _flat({"a": 1, "b": {"c": None, "d": {"e": "x", "f": [1], "g": ()}}}) == {"a": 1, "b/c": None, "b/d/e": "x"}
