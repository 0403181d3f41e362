"""How charts look: told apart without colour, and the same in every file."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008), without the yellow, which is lost on white paper. Every series has a
# marker and a line of its own as well, for print in black and white.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#000000", "marker": "D", "linestyle": ":"},
    {"color": "#CC79A7", "marker": "v", "linestyle": (0, (5, 1))},
    {"color": "#56B4E9", "marker": "P", "linestyle": (0, (3, 1, 1, 1))},
    {"color": "#E69F00", "marker": "X", "linestyle": (0, (1, 1))},
    {"color": "#707070", "marker": "<", "linestyle": (0, (6, 2, 1, 2, 1, 2))},
)
GREY = "#707070"
PAPER_MARKERS = ("*", "d", ">", "P", "X", "p", "<", "v", "^")
"""Of methods that only papers have: dark, open, and none of the markers above until these run out."""
BESIDE = 4  # series up to which a legend fits inside the axes
LEGEND_WIDTH = 34  # characters of a label in a legend beside the axes


@dataclass(frozen=True)
class Chart:
    """A drawn chart. name: of its files, without ending. caption: what it shows, in one sentence."""

    name: str
    caption: str
    figure: "Figure"

    def __post_init__(self) -> None:
        """Lays the figure out once: each drawing would move things a little further, and take as long."""
        if self.figure.get_layout_engine() is not None:
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine("none")

    def png(self) -> bytes:
        """The chart as a PNG file."""
        return _saved(self.figure, "png", dpi=150)

    def svg(self) -> bytes:
        """The chart as an SVG file, the same bytes for the same chart; its text is drawn as paths."""
        from matplotlib import rc_context

        with rc_context({"svg.hashsalt": self.name, "svg.fonttype": "path"}):
            return _saved(self.figure, "svg", metadata={"Date": None})


def _saved(figure: "Figure", form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=form, **options)
    return file.getvalue()


def new_figure(width: float = 6.4, height: float = 4.2) -> "Figure":
    """An empty figure of so many inches, which makes room for labels and legend by itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: "Axes", *, x: str, y: str, title: str = "") -> None:
    """Names the axes and takes away what carries nothing."""
    axes.set_xlabel(literal(x))
    axes.set_ylabel(literal(y))
    if title:
        axes.set_title(literal(title), fontsize=10, loc="left")
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: "Figure", axes: "Axes") -> None:
    """A legend inside the axes for a few series, beside them for many, none for none."""
    from matplotlib.container import Container

    pairs = list(zip(*axes.get_legend_handles_labels(), strict=True))
    if not pairs:
        return
    pairs.sort(key=lambda pair: not isinstance(pair[0], Container))  # our means with deviations before single lines
    handles, labels = zip(*pairs, strict=True)
    if len(handles) <= BESIDE and max(map(len, labels)) <= LEGEND_WIDTH:
        axes.legend(fontsize=8, framealpha=0.85, edgecolor="none", loc="best")
        return
    figure.set_figwidth(figure.get_figwidth() + 0.6 + 0.068 * min(max(map(len, labels)), LEGEND_WIDTH))
    wrapped = [_wrapped(label) for label in labels]
    figure.legend(handles, wrapped, fontsize=8, frameon=False, loc="outside right upper")


def literal(text: str) -> str:
    """A text from a run's files in which matplotlib finds no formula; on one line."""
    return " ".join(str(text).split()).replace("$", r"\$")


def label(text: str) -> str:
    """A series' label; matplotlib would leave out one that begins with an underscore."""
    return literal(text).lstrip("_") or "-"


def style(index: int) -> dict[str, Any]:
    """The look of the series of that number; after the last they begin again."""
    return STYLES[index % len(STYLES)]


def paper_style(index: int) -> dict[str, Any]:
    """The look of the method of that number among those that only papers have."""
    return {"color": "#303030", "marker": PAPER_MARKERS[index % len(PAPER_MARKERS)]}


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, LEGEND_WIDTH, subsequent_indent="  ")) or text
