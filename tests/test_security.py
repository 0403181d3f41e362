"""What nobody should be able to do to a user of pruneexp by giving them a file, and what must not leak from them."""

import ast
import json
import sys
from pathlib import Path

import pytest
import yaml

import pruneexp
from pruneexp import experiment
from pruneexp.building import build, check_targets
from pruneexp.cli import CONFIGS, compose
from pruneexp.config import ConfigError
from pruneexp.credentials import holds_secret, redacted
from pruneexp.verification.verify import verify

PACKAGE = Path(pruneexp.__file__).parent
FILES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.parent.glob("scripts/*.py")])
SMALL = ["dataset.max_examples=60", "batch_size=20", "epochs=1", "dense=none", "device=cpu", "method=magnitude"]

FORBIDDEN = {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "joblib.load",
    "dill.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "eval",
    "exec",
    "torch.hub.load",
    "torch.jit.load",
    "tarfile.open",
    "shutil.unpack_archive",
}
"""Calls that run what a file says, or write where an archive says."""

ALLOWED_ONCE = {
    "torch.export.load": "export/formats.py",  # reads back what the same function has just written
    "zipfile.ZipFile": "checkpoint_files.py",  # writes a digest; extracts nothing
}


def name_of(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield name_of(node.func), {word.arg: word.value for word in node.keywords}


def constant(node: ast.AST | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_is_read_in_a_way_that_runs_what_it_says(path):
    for name, words in calls(path):
        assert name not in FORBIDDEN, name
        if name in ALLOWED_ONCE:
            assert str(path).endswith(ALLOWED_ONCE[name]), name
        if name == "torch.load" or name.endswith(("load_state_dict_from_url", "get_state_dict")):
            assert constant(words.get("weights_only")) is True, name
        assert constant(words.get("shell")) is not True, name
        assert constant(words.get("allow_pickle")) is not True, name
        assert not name.endswith(".extractall"), name


def test_the_test_above_sees_what_it_looks_for(tmp_path):
    path = tmp_path / "bad.py"
    bad = ["torch.load(f)", "pickle.load(f)", "torch.load(f, weights_only=False)", "yaml.load(f)", "a.extractall()"]
    for line in [*bad, "eval(x)", "run(x, shell=True)", "numpy.load(f, allow_pickle=True)", "w.get_state_dict()"]:
        path.write_text(line)
        with pytest.raises(AssertionError):
            test_no_file_is_read_in_a_way_that_runs_what_it_says(path)


def test_the_one_unpickler_of_our_own_builds_arrays_only():
    """Of CIFAR's python files; its find_class is tested with the dataset."""
    subclasses = [
        (path.name, node.name)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(name_of(base).endswith("Unpickler") for base in node.bases)
    ]
    assert subclasses == [("cifar.py", "_ArraysOnly")]


def test_no_config_trusts_remote_code_and_the_option_says_what_it_means(caplog, tmp_path):
    for path in CONFIGS.rglob("*.yaml"):
        node = yaml.safe_load(path.read_text()) or {}
        assert node.get("trust_remote_code", False) is False
    (tmp_path / "config.json").write_text("{}")
    options = ["model=bert", f"model.name_or_path={tmp_path}", "model.trust_remote_code=true"]
    build(compose(options)["model"], "model")
    assert f"Python files that come with {tmp_path} run with your rights" in caplog.text


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, _ = experiment.run(compose([*SMALL, "logger=none", f"output_dir={tmp_path_factory.mktemp('runs')}"]))
    return folder


def forged(finished, folder, **model):
    """A copy of a run as someone would send it: another config, and a summary that says nothing of it."""
    folder.mkdir()
    for path in finished.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"] |= model
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    summary = json.loads((folder / "summary.json").read_text())
    del summary["sha256"]
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A module that leaves a trace when it is imported, and a class in it that is a model like the default one."""
    (tmp_path / "theirs.py").write_text(
        f"import pathlib\nfrom pruneexp.models.cifar_resnet import CifarResNet as Base\n"
        f"pathlib.Path({str(tmp_path / 'imported')!r}).touch()\nclass Net(Base):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    return tmp_path / "imported"


@pytest.mark.parametrize(
    "target",
    ["theirs.Net", "os.system", "subprocess.run", "pruneexp.cli.compose", "pruneexp.whole_files.write_json", "x", 3],
)
def test_a_run_folder_cannot_name_what_is_built(target, finished, tmp_path, theirs):
    folder = forged(finished, tmp_path / "run", _target_=target)
    with pytest.raises(ValueError, match="is no class of pruneexp, and naming it runs its code"):
        pruneexp.load(folder)
    assert not theirs.exists()
    config = compose([*SMALL, "logger=none", "distillation=logits", f"distillation.teacher={folder}"])
    with pytest.raises(ConfigError, match="is no class of pruneexp"):
        experiment.run({**config, "output_dir": str(tmp_path / "outputs")})
    assert not theirs.exists()


@pytest.mark.parametrize("key", ["dataset", "auxiliary"])
def test_what_verifies_a_run_folder_builds_no_data_that_is_not_ours(key, finished, tmp_path, theirs):
    folder = forged(finished, tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config[key] = {"_target_": "theirs.Net", "weight": 1.0, "batch_size": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=rf"{key}\._target_=theirs\.Net is no class of pruneexp"):
        verify(folder)
    assert not theirs.exists()


def test_nested_names_are_looked_at_too(tmp_path):
    node = {
        "_target_": "pruneexp.methods.pdp.PDP",
        "pattern": {"_target_": "os.system"},
        "list": [{"_target_": "eval"}],
    }
    with pytest.raises(ConfigError, match=r"method\.pattern\._target_=os\.system"):
        check_targets(node, "method", tmp_path)
    with pytest.raises(ConfigError, match=r"method\.list\.0\._target_=eval"):
        check_targets({**node, "pattern": {}}, "method", tmp_path)


def test_a_user_can_vouch_for_a_class(finished, tmp_path, theirs):
    folder = forged(finished, tmp_path / "run", _target_="theirs.Net")
    assert type(pruneexp.load(folder, trust=["theirs.Net"])).__module__.startswith("pruneexp.")
    assert theirs.exists()


def test_a_run_folder_cannot_switch_remote_code_on(finished, tmp_path):
    node = {"_target_": "pruneexp.models.hugging_face.HuggingFace", "trust_remote_code": True, "name_or_path": "x"}
    folder = forged(finished, tmp_path / "run", **node)
    with pytest.raises(ValueError, match=r"model\.trust_remote_code=true would run Python files that came with"):
        pruneexp.load(folder)


SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_" + "AbCdEfGhIj" * 3 + "Klmn",
    "SOME_PASSWORD": "correct horse battery",
}


@pytest.fixture
def planted(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def test_no_secret_of_the_environment_reaches_a_file_or_the_terminal(planted, tmp_path, monkeypatch, capfd):
    from pruneexp import cli

    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prune-run", *SMALL, "logger.mode=offline"])
    cli.main()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"config.yaml", "meta.json", "metrics.jsonl", "summary.json"} <= names
    assert any(name.endswith(".wandb") for name in names)
    output = "".join(capfd.readouterr()).encode()
    for value in SECRETS.values():
        assert value.encode() not in output
        assert not [path for path in files if value.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "option",
    [
        "group={WANDB_API_KEY}",
        "logger.tags=[{HF_TOKEN}]",
        "experiment_name=run-{WANDB_API_KEY}",
        "'group={SOME_PASSWORD}'",
        "+wandb_api_key={WANDB_API_KEY}",
        "+method.token={HF_TOKEN}",
        "output_dir=hf_aaaaabbbbbcccccdddddeeeeefffffggggg",
        "'group=\"https://user:secretword@host/\"'",
    ],
)
def test_a_secret_in_an_option_is_refused_and_not_repeated(option, planted, tmp_path, monkeypatch, capfd):
    from pruneexp import cli

    text = option.format(**SECRETS).strip("'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prune-run", *SMALL, "logger=none", text])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    output = "".join(capfd.readouterr())
    assert stop.value.code == 2
    assert "prune-run: " in output
    for value in (*SECRETS.values(), "secretword", "hf_aaaaabbbbb"):
        assert value not in output
    assert not list(tmp_path.iterdir())


def test_secrets_are_found_and_others_left(planted):
    assert redacted(f"a {SECRETS['HF_TOKEN']} b") == "a *** b"
    assert holds_secret(SECRETS["SOME_PASSWORD"])
    for plain in ("outputs/default", "4be5c2c8d1f0a9b7e6d5c4b3a29180706f5e4d3c", "https://example.org/a:b", "hf_short"):
        assert not holds_secret(plain)


def test_the_checksums_of_official_files_are_those_that_torchvision_lists():
    from torchvision import datasets

    from pruneexp.datasets import cifar10, cifar100

    for own, theirs in ((cifar10._OFFICIAL, datasets.CIFAR10), (cifar100._OFFICIAL, datasets.CIFAR100)):
        assert {name: md5 for name, (_, md5) in own.items()} == dict(theirs.train_list + theirs.test_list)


def test_downloads_are_checked_before_they_are_unpacked():
    """torchvision unpacks them; a wrong MD5 stops it, so that an archive holds what its authors put there."""
    import inspect

    from torchvision import datasets

    assert "md5" in inspect.signature(datasets.utils.download_and_extract_archive).parameters
    assert all(len(md5) == 32 for md5 in (datasets.CIFAR10.tgz_md5, datasets.CIFAR100.tgz_md5))
    assert all(len(md5) == 32 for _, md5 in datasets.FashionMNIST.resources)
