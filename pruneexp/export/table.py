"""What a user sees at the end of an export."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pruneexp.report.console import bytes_text, count_text
from pruneexp.report.scores import score_text

if TYPE_CHECKING:
    from rich.console import Console

LISTED = 8  # reasons for keeping zero units that are printed; export.json has all


def print_record(record: Mapping[str, Any], console: "Console") -> None:
    """Prints the record of an export: the table, the files, what was kept, the folder."""
    from rich import box
    from rich.table import Table

    sizes = list(dict.fromkeys(row["batch_size"] for row in record["latency"]))
    console.print(record["run"], style="bold", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold", min_width=6, max_width=11)
    times = [f"ms at\nbatch {size}" for size in sizes]
    for heading in (f"test\n{record['headline']}", "\nparameters", "\nMACs", "\nweights", *times):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in table_rows(record):
        table.add_row(*row)
    console.print(table)
    first = record["latency"][0]
    console.print(
        f"times: median ± half the interquartile range of {first['runs']} calls, in turn; {first['threads']} threads, "
        f"{first['device']}",
        soft_wrap=True,
    )
    console.print(f"shrunk = masked in float64: relative error {record['relative_error']:.1e}")
    for file in record["files"].values():
        console.print(f"{file['file']}: {bytes_text(file['bytes'])}, relative error {file['relative_error']:.1e}")
    if report := record["channels"]:
        reads, unordered = report["layers"], report["layers_unordered"]
        console.print(
            f"{report['mode']} channels: of {sum(reads.values())} layers {reads['whole']} read a whole tensor, "
            f"{reads['slice']} a slice, {reads['copy']} a copy; without re-ordering {unordered['slice']} a slice, "
            f"{unordered['copy']} a copy",
            soft_wrap=True,
        )
    for kept in record["kept"][:LISTED]:
        console.print(f"kept: {kept['units']} zero units of {kept['layer']}: {kept['why']}", soft_wrap=True)
    if len(record["kept"]) > LISTED:
        console.print(f"kept: {len(record['kept']) - LISTED} more such lines in export.json")
    console.print(f"folder  {record['folder']}", soft_wrap=True)


def table_rows(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The lines of the table. The dense model has the masked one's shapes, so its times are not taken again."""
    times: dict[str, dict[int, str]] = {}
    masked = {row["batch_size"]: row["median"] for row in record["latency"] if row["variant"] == "masked"}
    for row in record["latency"]:
        times.setdefault(row["variant"], {})[row["batch_size"]] = time_text(row, masked.get(row["batch_size"]))
    sizes = list(dict.fromkeys(row["batch_size"] for row in record["latency"]))
    lines = []
    for row in record["rows"]:
        score = "-" if row["score"] is None else score_text(record["headline"], row["score"])
        shown = [times[row["model"]][size] if row["model"] in times else "as masked" for size in sizes]
        counts = (f"{row['parameters']:,}", count_text(row["macs"]), bytes_text(row["bytes"]))
        lines.append((row["model"], score, *counts, *shown))
    named = {row["model"] for row in record["rows"]}
    lines += [
        (variant, "", "", "", "", *(by_size[size] for size in sizes))
        for variant, by_size in times.items()
        if variant not in named
    ]
    return lines


def time_text(row: Mapping[str, Any], masked: float | None) -> str:
    """Milliseconds with three digits, their spread, and how many times faster than the masked model that is.

    row: a line of `latency`. masked: the masked model's median in seconds.
    """
    median, spread = 1e3 * row["median"], 500 * (row["third_quartile"] - row["first_quartile"])
    decimals = next((digits for digits, least in enumerate((100, 10, 1)) if median >= least), 3)
    text = f"{median:.{decimals}f} ± {spread:.{decimals}f}"
    return text if row["variant"] == "masked" or not masked else f"{text}\n{masked / row['median']:.1f} x as fast"
