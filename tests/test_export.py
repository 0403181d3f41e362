"""prune-export: a run goes in, a smaller model that is proven and measured comes out; bad input ends in one line."""

import json
import random
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import pruneexp
from pruneexp.cli import compose
from pruneexp.experiment import run
from pruneexp.export.command import main
from pruneexp.export.table import time_text
from pruneexp.models.hidden_stream import hidden_stream
from pruneexp.surgery.encoders import attentions, feed_forwards
from pruneexp.surgery.packed import load_packed
from pruneexp.surgery.shrink import shrink
from pruneexp.tasks.base import predict

SMALL = ["epochs=1", "dense=none", "logger=none", "device=cpu", "method=magnitude", "sparsity=0.3"]
FAST = ["--runs", "2", "--batch-sizes", "1,2", "--device", "cpu"]
TEXT = ["model=bert_tiny", "dataset=text_embedded", "dataset.max_examples=80", "batch_size=20"]
IMAGES = ["model=resnet20", "dataset.max_examples=100", "batch_size=50"]


def make_run(folder, *options):
    path, _ = run(compose([*SMALL, *options, f"output_dir={folder}"]))
    return path


def edited(source, folder, masks):
    """A copy of a run whose weights are zero where these masks are False, as a structured pattern leaves it."""
    shutil.copytree(source, folder)
    state = load_file(folder / "model.safetensors")
    for name, mask in masks.items():
        state[name] = state[name] * mask
    save_file(state, folder / "model.safetensors")
    save_file({name: mask.clone() for name, mask in masks.items()}, folder / "masks.safetensors")
    summary = json.loads((folder / "summary.json").read_text())
    summary.pop("sha256", None)  # as in runs of the first version; with it the edit would be noticed
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="session")
def unstructured_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("images"), *IMAGES)


@pytest.fixture(scope="session")
def channel_run(unstructured_run, tmp_path_factory):
    """Half of the inner channels of every block are dead: filters, gammas and betas."""
    masks = {}
    for name, tensor in load_file(unstructured_run / "model.safetensors").items():
        if ".conv1.weight" in name or (".bn1." in name and name.endswith(("weight", "bias"))):
            width = len(tensor)
            kept = torch.ones(width, dtype=torch.bool)
            kept[random.Random(name.split(".conv1")[0].split(".bn1")[0]).sample(range(width), width // 2)] = False
            masks[name] = kept.reshape(-1, *[1] * (tensor.dim() - 1))
    return edited(unstructured_run, tmp_path_factory.mktemp("channels") / "run", masks)


@pytest.fixture(scope="session")
def text_run(tmp_path_factory):
    """A BERT without heads in the first layer and with a quarter of its feed-forward units."""
    source = make_run(tmp_path_factory.mktemp("texts"), *TEXT)
    network = pruneexp.load(source)
    names = {parameter: name for name, parameter in network.named_parameters()}
    masks = {}
    for number, (_, found) in enumerate(attentions(network)):
        dead = torch.zeros(found.projection.in_features, dtype=torch.bool)
        dead[: None if number == 0 else found.attention.attention_head_size] = True
        for projection in (getattr(found.attention, name) for name in found.names):
            masks |= {names[projection.weight]: ~dead[:, None], names[projection.bias]: ~dead}
        masks[names[found.projection.weight]] = ~dead[None]
    for _, found in feed_forwards(network):
        first, second = getattr(*found.first), getattr(*found.second)
        kept = torch.arange(first.out_features) % 4 == 0
        masks |= {names[first.weight]: kept[:, None], names[first.bias]: kept, names[second.weight]: kept[None]}
    return edited(source, tmp_path_factory.mktemp("heads") / "run", masks)


@pytest.fixture(scope="session")
def hidden_run(text_run, tmp_path_factory):
    """The same without every third of its hidden dimensions."""
    stream, masks = hidden_stream(pruneexp.load(text_run)), load_file(text_run / "masks.safetensors")
    kept = torch.arange(stream.width) % 3 > 0
    for name in (*stream.embeddings, *stream.writers, *stream.norms):
        rows = kept[None] if name in stream.embeddings else kept[:, None] if name in stream.writers else kept
        masks[f"{name}.weight"] = rows & masks.get(f"{name}.weight", torch.tensor(True))
        if name not in stream.embeddings:
            masks[f"{name}.bias"] = kept
    return edited(text_run, tmp_path_factory.mktemp("hidden") / "run", masks)


def outputs(network, inputs):
    with torch.no_grad():
        return predict(network.double(), inputs)


def test_an_image_model(channel_run, capsys):
    main([str(channel_run), *FAST, "--compressed"])
    text = capsys.readouterr().out
    record = json.loads((channel_run / "export" / "export.json").read_text())
    _, masked, shrunk = record["rows"]
    assert [row["model"] for row in record["rows"]] == ["dense", "masked", "shrunk"]
    assert masked["score"] == shrunk["score"]
    blocks = [(16, 3, 16), (32, 3, 16), (64, 3, 32)]  # width, blocks, inputs of the first
    removed = sum(
        (width // 2) * (9 * (inputs if block == 0 else width) + 9 * width + 2)
        for width, count, inputs in blocks
        for block in range(count)
    )
    assert masked["parameters"] - shrunk["parameters"] == removed
    assert shrunk["macs"] < 0.55 * masked["macs"]
    assert shrunk["bytes"] < 0.55 * masked["bytes"]
    assert record["relative_error"] <= 1e-6
    assert record["kept"] == []
    small, large = pruneexp.load(channel_run / "export"), pruneexp.load(channel_run)
    assert sum(parameter.numel() for parameter in small.parameters()) == shrunk["parameters"]
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(outputs(small, x), outputs(large, x), rtol=1e-6, atol=1e-6)
    packed = load_packed(channel_run / "export" / "packed.safetensors")
    stored = load_file(channel_run / "export" / "model.safetensors")
    assert packed.keys() == stored.keys()
    assert all(torch.equal(packed[name], stored[name]) for name in stored)
    assert {row["batch_size"] for row in record["latency"]} == {1, 2}
    for words in ("accuracy", f"{masked['parameters']:,}", f"{shrunk['parameters']:,}", "as masked", "batch 2"):
        assert words in text
    assert "…" not in text  # nothing is cut off in a terminal of 80 columns
    assert {path.name for path in (channel_run / "export").iterdir()} == {
        *("model.safetensors", "structure.json", "config.yaml", "export.json", "packed.safetensors")
    }
    assert not list(channel_run.glob(".*"))


def test_a_text_model_loads_without_a_run_and_not_by_from_pretrained(text_run, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    main([str(text_run), *FAST, "--output", str(tmp_path / "small")])
    small, large = pruneexp.load(tmp_path / "small"), pruneexp.load(text_run)
    tokens = dict(
        AutoTokenizer.from_pretrained(tmp_path / "small")(
            ["one text", "and another one"], padding=True, return_tensors="pt"
        )
    )
    torch.testing.assert_close(outputs(small, tokens), outputs(large, tokens), rtol=1e-6, atol=1e-6)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in large.parameters())
    with pytest.raises(RuntimeError, match="You set `ignore_mismatched_sizes` to `False`, thus raising an error"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "small")


@pytest.mark.parametrize("kind", ["image", "text", "hidden"])
def test_a_run_whose_own_model_was_shrunk_loads(kind, channel_run, text_run, hidden_run, tmp_path):
    run = {"image": channel_run, "text": text_run, "hidden": hidden_run}[kind]
    main([str(run), *FAST, "--output", str(tmp_path / "out")])
    folder = without(run, tmp_path / "run")
    for name in ("model.safetensors", "structure.json"):
        shutil.copy(tmp_path / "out" / name, folder / name)
    small, again = pruneexp.load(tmp_path / "out"), pruneexp.load(folder)
    ids = torch.randint(5, 50, (2, 7))
    x = torch.randn(4, 1, 8, 8).double() if kind == "image" else {"input_ids": ids, "attention_mask": ids > 0}
    assert torch.equal(outputs(again, x), outputs(small, x))
    assert not again.training


def test_a_text_model_without_hidden_dimensions(hidden_run, text_run, tmp_path):
    """Beside them the first layer has no heads, the second one head less, and both a quarter of their units."""
    main([str(hidden_run), *FAST, "--output", str(tmp_path / "small")])
    record = json.loads((tmp_path / "small" / "export.json").read_text())
    _, masked, small = record["rows"]
    assert record["kept"] == []
    assert record["relative_error"] <= 1e-12
    assert masked["score"] == small["score"]
    network, dense = pruneexp.load(tmp_path / "small"), pruneexp.load(hidden_run)
    ids = torch.randint(5, 50, (3, 11))
    inputs = {"input_ids": ids, "attention_mask": ids > 20}
    torch.testing.assert_close(outputs(network, inputs), outputs(dense, inputs), rtol=1e-10, atol=1e-10)
    config = dense.config
    width, head, units = config.hidden_size, config.hidden_size // config.num_attention_heads, config.intermediate_size
    columns = config.vocab_size + config.max_position_embeddings + config.type_vocab_size + width  # embeddings, pooler
    layers = [6 + 4 * left + 2 * (units // 4) for left in (0, width - head)]  # projections; 2 biases and 2 norms
    whole = shrink(pruneexp.load(text_run), {}, inputs)
    removed = sum(net.numel() for net in whole.parameters()) - small["parameters"]
    assert removed == (width + 2) // 3 * (columns + 2 + sum(layers))


def test_an_export_is_replaced_and_other_folders_are_not(channel_run, tmp_path, capsys):
    output = tmp_path / "out"
    main([str(channel_run), *FAST, "--output", str(output), "--compressed"])
    main([str(channel_run), *FAST, "--output", str(output)])
    assert not (output / "packed.safetensors").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    assert failure([str(channel_run), "--output", str(tmp_path / "mine")], capsys) == (
        f"prune-export: --output {tmp_path / 'mine'}: exists and is no export; choose another folder"
    )
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("kind", ["image", "text"])
def test_other_formats_compute_the_same(kind, channel_run, text_run, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = channel_run if kind == "image" else text_run
    main([str(folder), *FAST, "--output", str(tmp_path / "out"), "--onnx", "--torch-export"])
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert set(record["files"]) == {"onnx", "torch_export"}
    assert all(file["relative_error"] < 1e-4 for file in record["files"].values())
    assert "shrunk, onnx" in {row["variant"] for row in record["latency"]}
    if kind == "image":
        program = torch.export.load(tmp_path / "out" / "model.pt2").module()
        x = torch.randn(7, 1, 8, 8)  # neither the batch it was traced with nor those it was checked with
        torch.testing.assert_close(program(x), pruneexp.load(tmp_path / "out")(x))


def failure(arguments, capsys, code=2):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*FAST, *arguments])
    assert stop.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_an_unstructured_run_says_what_can_be_done_instead(unstructured_run, tmp_path, capsys):
    line = failure([str(unstructured_run), "--output", str(tmp_path / "out")], capsys)
    assert "nothing can be removed: no whole channel, head or unit is zero" in line
    assert "--compressed" in line
    assert "N:M" in line
    assert not (tmp_path / "out").exists()
    main([str(unstructured_run), *FAST, "--output", str(tmp_path / "out"), "--compressed"])
    packed = load_packed(tmp_path / "out" / "packed.safetensors")
    assert all(
        torch.equal(packed[name], tensor) for name, tensor in pruneexp.load(unstructured_run).state_dict().items()
    )


def without(source, folder, *names):
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("export", *names))
    return folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "masks.safetensors").unlink(), "has no masks.safetensors"),
        (lambda run: (run / "masks.safetensors").write_text("x"), "masks.safetensors: is damaged"),
        (lambda run: save_file({}, run / "masks.safetensors"), "pruned nothing, its masks are empty"),
        (lambda run: (run / "model.safetensors").write_bytes(b"x" * 99), "model.safetensors: damaged"),
    ],
)
def test_bad_input_ends_in_one_line(damage, message, channel_run, tmp_path, capsys):
    folder = without(channel_run, tmp_path / "run")
    damage(folder)
    assert message in failure([str(folder)], capsys)
    assert not (folder / "export").exists()


def test_masks_that_do_not_fit_the_weights(channel_run, tmp_path, capsys):
    folder = without(channel_run, tmp_path / "run")
    masks = load_file(folder / "masks.safetensors")
    alive = int(load_file(folder / "model.safetensors")["conv1.weight"].count_nonzero())
    masks["conv1.weight"] = torch.zeros(16, 1, 1, 1, dtype=torch.bool)
    save_file({name: mask.clone() for name, mask in masks.items()}, folder / "masks.safetensors")
    assert f"conv1.weight is not zero at {alive} weights that its mask prunes" in failure([str(folder)], capsys)


def test_an_export_of_an_export_and_impossible_options(channel_run, tmp_path, capsys):
    main([str(channel_run), *FAST, "--output", str(tmp_path / "out")])
    assert "is an export already" in failure([str(tmp_path / "out")], capsys)
    assert "device=tpu: want" in failure([str(channel_run), "--output", str(tmp_path / "b"), "--device", "tpu"], capsys)


def test_a_missing_package_or_compiler_is_named(channel_run, tmp_path, capsys, monkeypatch):
    from pruneexp.export import formats

    with monkeypatch.context() as patch:
        patch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else True)
        line = failure([str(channel_run), "--output", str(tmp_path / "out"), "--onnx"], capsys)
    assert line == "prune-export: --onnx: needs onnxscript; pip install 'pruneexp[onnx]'"

    def no_compiler(module, **options):
        raise RuntimeError("no C++ compiler\nmore lines")

    monkeypatch.setattr(torch, "compile", lambda module, **options: no_compiler)
    line = failure([str(channel_run), "--output", str(tmp_path / "out"), "--compile"], capsys, code=1)
    assert line == "prune-export: --compile: torch.compile fails here: no C++ compiler"
    assert not list(tmp_path.iterdir())


def test_a_damaged_export_is_refused_in_one_line(channel_run, tmp_path):
    main([str(channel_run), *FAST, "--output", str(tmp_path / "out")])
    structure = json.loads((tmp_path / "out" / "structure.json").read_text())
    structure["layers"]["layer1.0.conv1"]["out_channels"] += 1
    (tmp_path / "out" / "structure.json").write_text(json.dumps(structure))
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight has shape"):
        pruneexp.load(tmp_path / "out")
    (tmp_path / "out" / "structure.json").write_text("{")
    with pytest.raises(ValueError, match=r"structure\.json: is damaged"):
        pruneexp.load(tmp_path / "out")


def test_help_needs_no_torch():
    code = "import sys; sys.argv = ['prune-export', '--help']\n"
    code += "from pruneexp.export.command import main\ntry: main()\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        ["method=channel", *IMAGES],
        ["method=gmp", "pattern=channel", *IMAGES],
        ["method=pdp", "pattern=transformer", *TEXT],
    ],
    ids=["soft channels", "hard channels", "heads and FFN units"],
)
def test_a_structured_run_becomes_smaller_by_all_that_it_pruned(options, tmp_path):
    path = make_run(tmp_path, *options, "sparsity=0.5", "epochs=2")
    summary = json.loads((path / "summary.json").read_text())
    main([str(path), *FAST])
    record = json.loads((path / "export" / "export.json").read_text())
    small = pruneexp.load(path / "export")
    parameters = sum(parameter.numel() for parameter in small.parameters())
    pruned = sum(int((~mask).sum()) for mask in full_masks(path))
    assert parameters <= summary["params"]["total"] - pruned
    assert record["kept"] == []
    assert record["relative_error"] < 1e-6


def full_masks(path):
    weights, masks = load_file(path / "model.safetensors"), load_file(path / "masks.safetensors")
    return [mask.expand_as(weights[name]) for name, mask in masks.items()]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ([0.6902, 0.6911, 0.6922], "691 ± 1\n12.0 x as fast"),
        ([0.0299, 0.030, 0.0303], "30.0 ± 0.2\n276.4 x as fast"),
        ([0.0041, 0.0042, 0.0043], "4.20 ± 0.10\n1974.5 x as fast"),
        ([0.0005, 0.0005, 0.0005], "0.500 ± 0.000\n16586.0 x as fast"),
    ],
)
def test_times_have_three_digits_and_say_how_much_faster_that_is(seconds, text):
    first, median, third = seconds
    row = {"variant": "shrunk", "median": median, "first_quartile": first, "third_quartile": third}
    assert time_text(row, 8.293) == text
    assert time_text({**row, "variant": "masked"}, median) == text.partition("\n")[0]


@pytest.mark.parametrize("mode", ["unconstrained", "unordered", "constrained"])
def test_layers_that_chose_their_own_channels(mode, tmp_path, capsys):
    path = make_run(tmp_path, *IMAGES, "method=pdp", "pattern=input_channel", "sparsity=0.5", "epochs=2")
    main([str(path), *FAST, "--channels", mode, "--onnx"])
    text = capsys.readouterr().out
    record = json.loads((path / "export" / "export.json").read_text())
    _, masked, shrunk = record["rows"]
    pruned = sum(int((~mask).sum()) for mask in full_masks(path))
    assert shrunk["parameters"] < masked["parameters"]
    if mode != "constrained":  # nothing that is pruned is left
        assert shrunk["parameters"] <= masked["parameters"] - pruned
    reads = record["channels"]["layers"]
    assert (reads["copy"] > 0) == (mode == "unordered") or mode == "unconstrained"
    assert f"{reads['slice']} a slice" in text
    small, large = pruneexp.load(path / "export"), pruneexp.load(path)
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(outputs(small, x), outputs(large, x), rtol=1e-6, atol=1e-6)


def test_own_channels_need_images_and_zeros_that_no_norm_revives(unstructured_run, text_run, tmp_path, capsys):
    texts = failure([str(text_run), "--output", str(tmp_path / "a"), "--channels", "unconstrained"], capsys)
    assert "--channels unconstrained: is for networks of images" in texts
    dead = torch.ones(16, 1, 1, 1, dtype=torch.bool)
    dead[:5] = False  # the filter is dead, and its norm's beta is not
    run = edited(unstructured_run, tmp_path / "run", {"layer1.0.conv1.weight": dead})
    state = load_file(run / "model.safetensors")
    state["layer1.0.bn1.bias"] = torch.ones(16)
    save_file(state, run / "model.safetensors")
    line = failure([str(run), "--channels", "unconstrained"], capsys)
    assert "a normalisation makes constants of pruned channels" in line
    both = failure([str(run), "--channels", "unordered", "--multiple-of", "8"], capsys)
    assert both == "prune-export: --multiple-of 8: does not go with --channels; leave one out"


def test_a_damaged_export_of_own_channels(tmp_path):
    path = make_run(tmp_path, *IMAGES, "method=magnitude", "pattern=input_channel", "sparsity=0.5")
    main([str(path), *FAST, "--channels", "unconstrained"])
    keep = load_file(path / "export" / "keep.safetensors")
    name = next(iter(keep))
    save_file({**keep, name: keep[name][:-1]}, path / "export" / "keep.safetensors")
    with pytest.raises(ValueError, match=r"keep\.safetensors does not fit the ResNet"):
        pruneexp.load(path / "export")
    save_file({**keep, name: torch.ones_like(keep[name])}, path / "export" / "keep.safetensors")
    with pytest.raises(ValueError, match=r"export the run again|has shape"):
        pruneexp.load(path / "export")


def test_semi_structured_layers_are_timed_on_gpus_only(unstructured_run, tmp_path, capsys):
    line = failure([str(unstructured_run), "--output", str(tmp_path / "out"), "--semi-structured"], capsys)
    assert line.startswith("prune-export: --semi-structured: needs an NVIDIA GPU")
    assert not (tmp_path / "out").exists()
