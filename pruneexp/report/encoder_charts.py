"""What is left of a transformer encoder: the heads and FFN units that each layer keeps."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pruneexp.report.chart_style import Chart, literal, new_figure, tidy
from pruneexp.report.finished import FinishedRun
from pruneexp.report.numbers import finite
from pruneexp.report.series import Point, series_of

if TYPE_CHECKING:
    from numpy import ndarray

HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads")
"""How configs call the number of heads."""


@dataclass(frozen=True)
class KeptLayer:
    """One encoder layer. heads: of each head, whether it is kept. units: FFN units kept, of `all_units`."""

    name: str
    heads: "Sequence[bool]"
    units: int
    all_units: int


def encoder_charts(runs: Sequence[FinishedRun], title: str) -> list[Chart]:
    """A chart for each cell whose runs have lost heads or FFN units."""
    if runs[0].summary.get("info", {}).get("kind") != "text":
        return []
    charts = []
    for point in (point for one in series_of(runs) for point in one.points):
        kept = [layers for run in point.runs if (layers := kept_layers(run))]
        if any(not all(layer.heads) or layer.units < layer.all_units for layers in kept for layer in layers):
            name = "encoder_" + "".join(c if c.isalnum() or c in ".-" else "_" for c in point.label).strip("_")
            charts.append(_chart(point, kept, f"{title}, {point.label}", name))
    return charts


def kept_layers(run: FinishedRun) -> list[KeptLayer]:
    """The encoder layers of a run in order, by its masks; none where it has no encoder of a known kind."""
    from pruneexp.models.encoder_layers import BERT, DISTILBERT

    shapes, masks, heads = _shapes(run), _masks(run), _heads(run)
    if not masks or not heads:
        return []
    layers = []
    for names in (BERT, DISTILBERT):
        suffix = f".{names['value']}.weight"
        for prefix in (name.removesuffix(suffix) for name in shapes if name.endswith(suffix)):
            weights = {part: f"{prefix}.{path}.weight" for part, path in names.items()}
            if weights["ffn_input"] in shapes:
                layers.append(_layer(prefix, weights, shapes, masks, heads))
    return layers


def _layer(
    prefix: str,
    weights: Mapping[str, str],
    shapes: Mapping[str, tuple[int, int]],
    masks: Mapping[str, "ndarray"],
    heads: int,
) -> KeptLayer:
    """A head or unit is kept if some weight is in the rows that make it and some in the columns that read it."""
    width, units = shapes[weights["value"]][0], shapes[weights["ffn_input"]][0]
    dimensions = _alive(masks, weights["value"], 0, width) & _alive(masks, weights["attention_output"], 1, width)
    ffn = _alive(masks, weights["ffn_input"], 0, units) & _alive(masks, weights["ffn_output"], 1, units)
    return KeptLayer(prefix, dimensions.reshape(heads, -1).any(1).tolist(), int(ffn.sum()), units)


def _alive(masks: Mapping[str, "ndarray"], name: str, axis: int, size: int) -> "ndarray":
    """Which rows (axis 0) or columns (1) of a weight have anything left; all, where it is not pruned."""
    import numpy as np

    if name not in masks:
        return np.ones(size, dtype=bool)
    return np.broadcast_to(masks[name].any(1 - axis), (size,))


def _shapes(run: FinishedRun) -> dict[str, tuple[int, int]]:
    found = {}
    for row in run.layers:
        try:
            sizes = json.loads(row["shape"])
        except (KeyError, ValueError):
            continue
        if isinstance(sizes, list) and len(sizes) == 2:
            found[row["name"]] = tuple(sizes)
    return found


def _masks(run: FinishedRun) -> "dict[str, ndarray]":
    from safetensors.numpy import load_file

    try:
        return load_file(run.folder / "masks.safetensors")
    except Exception:  # of safetensors, whatever the damage; a chart less
        return {}


def _heads(run: FinishedRun) -> int | None:
    """The heads of each layer, by the model's options or the config that transformers saved."""
    known: list[Any] = [run.config["model"]]
    with contextlib.suppress(OSError, ValueError):
        known.append(json.loads((run.folder / "processor" / "config.json").read_text(encoding="utf-8")))
    counts = [config.get(name) for config in known if isinstance(config, dict) for name in HEAD_COUNTS]
    return next((int(count) for count in counts if finite(count)), None)


def _chart(point: Point, kept: Sequence[Sequence[KeptLayer]], title: str, name: str) -> Chart:
    """Heads as squares, black where every seed keeps them; FFN units as bars with their number."""
    import numpy as np

    heads = np.array([[layer.heads for layer in layers] for layers in kept], dtype=float).mean(0)  # layers x heads
    units = np.array([[layer.units for layer in layers] for layers in kept], dtype=float)
    size, layers = kept[0][0].all_units, len(kept[0])
    figure = new_figure(7.2, 1.5 + 0.26 * layers)
    left, right = figure.subplots(1, 2, width_ratios=(max(heads.shape[1], 6), 12))
    # Cells of a mesh and no image, since an image would be a file of its own inside an SVG.
    edges = [np.arange(count + 1) - 0.5 for count in heads.shape]
    left.pcolormesh(edges[1], edges[0], heads, cmap="Greys", vmin=0, vmax=1, edgecolors="#999999", linewidth=0.6)
    left.set_ylim(layers - 0.5, -0.5)
    left.set_xticks(range(heads.shape[1]), range(heads.shape[1]), fontsize=8)
    left.set_yticks(range(layers), range(layers), fontsize=8)
    left.set_xlabel("head")
    left.set_ylabel("layer")
    left.set_title(f"heads: {heads.sum():.4g} of {heads.size} kept", fontsize=9)
    right.barh(range(layers), [size] * layers, color="none", edgecolor="#999999", linewidth=0.6)
    spread = units.std(0, ddof=1) if len(kept) > 1 else None
    right.barh(range(layers), units.mean(0), color="#404040", xerr=spread, ecolor="#D55E00", capsize=2)
    for y, count in enumerate(units.mean(0)):
        right.text(1.03 * size, y, f"{count:.4g}", ha="left", va="center", fontsize=7)
    right.set_xlim(0, 1.16 * size)
    right.set_ylim(layers - 0.4, -0.6)
    tidy(right, x="FFN units", y="")
    right.set_yticks(range(layers), range(layers), fontsize=8)
    right.set_title(f"FFN units: {units.mean(0).sum():.4g} of {size * layers:,} kept", fontsize=9)
    figure.suptitle(literal(title), fontsize=10, x=0.01, ha="left")
    seeds = f"; means over {len(kept)} seeds, grey where they differ" if len(kept) > 1 else ""
    return Chart(name, f"{title}: attention heads (black: kept) and FFN units of each layer{seeds}", figure)
