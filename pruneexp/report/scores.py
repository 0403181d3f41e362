"""How a score is written: what is a fraction of something in percent, what is not with three decimals."""

CORRELATIONS = ("matthews", "pearson", "spearman")


def is_percentage(metric: str) -> bool:
    """Whether papers give such a metric in percent: accuracy and F1, but no correlation (in [-1, 1]) and no loss."""
    return "loss" not in metric and not any(word in metric for word in CORRELATIONS)


def score_text(metric: str, value: float) -> str:
    """A score as it stands in a table: ("accuracy", 0.9275) -> "92.75 %", ("matthews", 0.5) -> "0.500"."""
    return f"{100 * value:.2f} %" if is_percentage(metric) else f"{value:.3f}"
