"""Tables as text: written out by hand, and nothing of a run's files is markup."""

import io
import re
import shutil
import subprocess

import pytest
from rich.console import Console

from pruneexp.report.formats import latex, latex_text, markdown, markdown_text, terminal
from pruneexp.report.grid import Column, Grid, Number

GRID = Grid(
    title="resnet20: accuracy (%)",
    labels=["method", "tau"],
    columns=[Column((sparsity, part)) for sparsity in ("80 %", "90 %") for part in ("ours", "paper", "difference")],
    rows=[
        (
            ["pdp", "0.1"],
            [Number(text) for text in ("90.00 ± 0.10", "-", "-", "85.00 ± 0.20")]
            + [Number("86", "a"), Number("-1.00")],
        ),
        (["sr_ste", "-"], [Number("-")] * 6),
    ],
    notes=["[a] Doe & Sons 2020_b.", "n = 3 | 4"],
)
NASTY = "a|b*_`<script>alert(1)</script>[x](y) # $\\alpha$ 50 % & {c} ~ ^ \n new"


def test_markdown():
    assert markdown(GRID) == (
        "**resnet20: accuracy (%)**\n\n"
        "| method | tau | 80 %, ours | 80 %, paper | 80 %, difference | 90 %, ours | 90 %, paper | 90 %, difference |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| pdp | 0.1 | 90.00 ± 0.10 | - | - | 85.00 ± 0.20 | 86 \\[a\\] | -1.00 |\n"
        "| sr\\_ste | - | - | - | - | - | - | - |\n\n"
        "- \\[a\\] Doe & Sons 2020\\_b.\n- n = 3 \\| 4\n"
    )


def test_latex():
    assert (
        latex(GRID)
        == r"""\begin{table}
  \centering
  \caption{resnet20: accuracy (\%)}
  \begin{tabular}{llrrrrrr}
    \toprule
     &  & \multicolumn{3}{c}{80 \%} & \multicolumn{3}{c}{90 \%} \\
    \cmidrule(lr){3-5} \cmidrule(lr){6-8}
    method & tau & ours & paper & difference & ours & paper & difference \\
    \midrule
    pdp & 0.1 & 90.00 $\pm$ 0.10 & - & - & 85.00 $\pm$ 0.20 & 86$^{a}$ & $-$1.00 \\
    sr\_ste & - & - & - & - & - & - & - \\
    \bottomrule
  \end{tabular}
  \par\medskip\footnotesize\raggedright
  {[}a] Doe \& Sons 2020\_b. \\
  n = 3 $|$ 4
\end{table}
"""
    )


def test_a_terminal_that_is_too_narrow_gets_the_columns_in_parts():
    def lines(width):
        console = Console(width=width, file=io.StringIO())
        tables = terminal(GRID, width)
        for table in tables:
            console.print(table)
        return len(tables), [" ".join(line.split()) for line in console.file.getvalue().splitlines() if line.strip()]

    count, text = lines(200)
    assert count == 1
    assert text[0] == "80 % 90 %" and text[1] == "method tau ours paper difference ours paper difference"
    assert text[3:] == ["pdp 0.1 90.00 ± 0.10 - - 85.00 ± 0.20 86 [a] -1.00", "sr_ste - - - - - - -"]
    count, text = lines(60)
    assert (
        count == 2 and sum(line.startswith("pdp 0.1") for line in text) == 2 and not any("…" in line for line in text)
    )
    assert lines(10)[0] == 6


def test_markup_in_names_is_text():
    escaped = markdown_text(NASTY)
    assert "\n" not in escaped and not re.search(r"(?<!\\)[|*_`<>\[\]#{}]", escaped)
    grid = Grid(NASTY, [NASTY], [Column((NASTY,))], [([NASTY], [Number(NASTY)])], [NASTY])
    body = [line for line in markdown(grid).splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in body] == [3, 3, 3]
    console = Console(width=300, file=io.StringIO())
    console.print(terminal(Grid("t", ["[bold]x"], [Column(("[red]y",))], [(["[z]"], [Number("[/]")])], []), 300)[0])
    for text in ("[bold]x", "[red]y", "[z]", "[/]"):
        assert text in console.file.getvalue()


def test_latex_of_any_text_is_balanced_and_escaped():
    escaped = latex_text(NASTY)
    bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|alpha|[&%$#_{}])", "", escaped)
    assert bare.count("{") == bare.count("}") and "&" not in bare and "%" not in bare and "#" not in bare


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles(tmp_path):
    nasty = Grid(
        NASTY,
        ["[a]", NASTY],
        [Column((NASTY, part)) for part in "ab"],
        [(["[b]", NASTY], [Number(NASTY, "a")] * 2)],
        [NASTY, "[c]"],
    )
    head = "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(head + latex(GRID) + latex(nasty) + "\\end{document}\n")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1500:]
