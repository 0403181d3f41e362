"""The HTML page: all in one file, nothing loaded from elsewhere, and no text of a run's files is markup."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from pruneexp.report.build import Request, make_report
from pruneexp.report.charts import charts
from pruneexp.report.page import page, write_page

VOID = {"meta", "br", "hr", "img", "input", "link"}
NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;--><!--"


class Reader(HTMLParser):
    """Reads a page strictly: its text, its tags with attributes; elements must close in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


@pytest.fixture
def html(tmp_path):
    def html(**options):
        report = make_report(Request([str(tmp_path / "runs")], bundled=False, **options))
        return page(report, charts(report))

    return html


def check_that_it_is_self_contained(html):
    reader = Reader(html)
    for tag, attributes in reader.tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "form", "a", "image"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                assert value.startswith("#"), (tag, name, value)
            assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", value or "")), (tag, value)
    assert "@import" not in html and "javascript:" not in html
    policies = [attributes["content"] for tag, attributes in reader.tags if attributes.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {target for value in re.findall(r'(?:href|url\()[="]*(#[^")]+)', html) for target in [value[1:]]}
    assert targets and targets <= set(ids)
    return reader


def test_everything_is_on_the_page(make_run, html, tmp_path):
    for seed, score in ((1, 0.5), (2, 0.75)):
        make_run(score, seed=seed, dense_score=0.875)
        make_run(score, seed=seed, sparsity=0.8)
    make_run(seed=3, finished=False)
    reader = check_that_it_is_self_contained(html())
    for words in (
        "resnet20 on digits",
        "62.50 ± 17.68",
        "Mean ± sample standard deviation over n = 2 seeds",
        "accuracy 87.50 %",
        "test accuracy against sparsity of the prunable weights",
        "running or interrupted at step 10 of 20",
        "00000001",  # a hash
        "c0ffeec0",  # its commit
        "prune-run seed=2",
        "torch: 2.13.0",
        "learning_rate: 0.1",  # of config.yaml
        str(tmp_path),
    ):
        assert words in reader.text, words
    assert sum(tag == "svg" for tag, _ in reader.tags) == 6  # sparsity, MACs, bytes, Pareto, schedule, layers


def test_texts_of_files_are_never_markup(make_run, html, tmp_path):
    run = make_run(
        0.5,
        method__note=NASTY,
        dataset=NASTY,
        summary={"headline": {"name": NASTY, "value": 0.5, "split": NASTY}, "dense": {"name": NASTY, "value": 0.25}},
    )
    make_run(0.25, method__note=f"{NASTY}2", dataset=NASTY, summary={"headline": {"name": NASTY, "value": 0.5}})
    meta = json.loads((run / "meta.json").read_text())
    meta |= {
        "commit": NASTY,
        "command": ["prune-run", NASTY],
        "platform": NASTY,
        "versions": {NASTY: NASTY},
        "start": NASTY,
    }
    (run / "meta.json").write_text(json.dumps(meta))
    bad = make_run(seed=5)
    (bad / "config.yaml").write_text(f"{NASTY}: [")
    reader = check_that_it_is_self_contained(html())
    assert reader.text.count("alert(1)") > 5 and "<script>alert(1)</script>" in reader.text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser on this machine")
def test_a_browser_shows_it_from_the_file_system_and_finds_nothing_amiss(make_run, tmp_path):
    """The page's policy forbids whatever it would load, so that a browser would say so on its console."""
    for seed in (1, 2):
        make_run(0.5, seed=seed)
    report = make_report(Request([str(tmp_path / "runs")], bundled=False))
    (path,) = write_page(report, charts(report), tmp_path / "report.html")
    for line, complaints in (("", 0), ('<img src="http://localhost/x.png">', 1)):
        path.write_text(path.read_text().replace("</body>", f"{line}</body>"))
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--enable-logging=stderr", "--dump-dom", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0
        assert done.stdout.count("<svg ") == 5 and "50.00 ± 0.00" in done.stdout
        assert done.stderr.count("CONSOLE") == complaints
