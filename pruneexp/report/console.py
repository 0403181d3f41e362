"""The table that a user sees at the end of a run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pruneexp.report.scores import score_text

if TYPE_CHECKING:
    from rich.table import Table

Row = tuple[str, str, str, str]  # label, dense, pruned, how much less


def summary_table(summary: Mapping[str, Any]) -> "Table":
    """A summary, as in summary.json, as a table of two columns of numbers: the dense model and the pruned one."""
    from rich import box
    from rich.table import Table

    title = f"{summary['method']}, {summary['model']} on {summary['dataset']}, seed {summary['seed']}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("")
    for heading in ("dense", "pruned", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows(summary):
        table.add_row(*row)
    return table


def rows(summary: Mapping[str, Any]) -> list[Row]:
    """The lines of the table: label, dense, pruned, ratio.

    Without a dense model its score is a dash. Parameters, MACs and bytes stand in its column all the same: they follow
    from the shapes, which pruning leaves as they are.
    """
    params, macs, size = summary["params"], summary["macs"], summary["size_bytes"]
    return [
        *_scores(summary),
        *_sparsity(summary["sparsity"]),
        *_masks(summary),
        (
            "non-zero parameters",
            f"{params['total']:,}",
            f"{params['nonzero']:,}",
            _ratio(params["total"], params["nonzero"]),
        ),
        (
            "MACs (zeros skipped)",
            count_text(macs["dense"]),
            count_text(macs["effective"]),
            _ratio(macs["dense"], macs["effective"]),
        ),
        (
            "size (zeros packed)",
            bytes_text(size["dense"]),
            bytes_text(size["compressed"]),
            _ratio(size["dense"], size["compressed"]),
        ),
        ("epochs, steps", "", f"{summary['epochs']:g}, {summary['steps']:,}", ""),
        ("time", "", _duration(summary["wall_seconds"]), ""),
    ]


def _scores(summary: Mapping[str, Any]) -> list[Row]:
    headline, dense, majority = summary["headline"], summary["dense"], summary.get("majority_rate")
    before = score_text(dense["name"], dense["value"]) if dense else "-"
    lines = [(f"{headline['split']} {headline['name']}", before, score_text(headline["name"], headline["value"]), "")]
    if majority is not None:
        # The accuracy that needs no model: on an unbalanced set a high score can be no better.
        lines.append((f"{headline['split']} majority class", "", score_text("accuracy", majority), ""))
    for name, auxiliary in summary.get("auxiliary", {}).items():
        other = auxiliary["headline"]
        label = f"{name}: {other['split']} {other['name']}"
        lines.append((label, "", score_text(other["name"], other["value"]), ""))
    return lines


def _sparsity(sparsity: Mapping[str, Any]) -> list[Row]:
    labels = {"target": "target sparsity", "prunable": "sparsity, prunable", "total": "sparsity, all parameters"}
    return [
        (label, "", f"{100 * sparsity[key]:.2f} %", "") for key, label in labels.items() if sparsity[key] is not None
    ]


def _masks(summary: Mapping[str, Any]) -> list[Row]:
    """What the masks of a pruned model leave to each of several tasks."""
    masks = {name: own["mask"] for name, own in summary.get("auxiliary", {}).items() if "mask" in own}
    sparsity = summary["sparsity"]["prunable"]
    if not masks or not sparsity:
        return []
    prunable = summary["params"]["prunable"]
    own = {name: mask for name, mask in masks.items() if mask["own"]}
    return [
        _mask("target's mask" if own else "mask of every task", sparsity, round((1 - sparsity) * prunable)),
        *(_mask(f"{name}'s mask", mask["sparsity"], mask["kept"]) for name, mask in own.items()),
    ]


def _mask(label: str, sparsity: float, kept: int) -> Row:
    return label, "", f"{100 * sparsity:.2f} %", f"{kept:,} weights"


def count_text(number: float) -> str:
    """Four digits and a unit: 1814073344 -> "1.814 G"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:.0f}"


def bytes_text(number: float) -> str:
    """Four digits and a unit, powers of ten as disks have it: 44700000 -> "44.7 MB"."""
    text = count_text(number)
    return text + ("B" if text[-1].isalpha() else " B")


def _ratio(dense: float, pruned: float) -> str:
    return f"{dense / pruned:.1f} x less" if 0 < pruned < dense else ""


def _duration(seconds: float) -> str:
    """The two largest units: 3725.0 -> "1 h 02 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def layer_table(layers: list[Mapping[str, str]]) -> "Table":
    """The rows of layers.csv as a table: what each layer lost, and which layers were left alone.

    Biases and norms, which go with the channels or heads they belong to, are in the file only.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("layer", overflow="fold")
    for heading in ("shape", "weights", "zeros", "sparsity"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in (layer for layer in layers if "," in layer["shape"]):
        share = f"{100 * float(layer['sparsity']):.2f} %" if layer["pruned"] == "True" else "left alone"
        shape = layer["shape"].strip("[]").replace(", ", " x ")
        table.add_row(layer["name"], shape, f"{int(layer['weights']):,}", f"{int(layer['zeros']):,}", share)
    return table
