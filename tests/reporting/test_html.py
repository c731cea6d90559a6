"""The page: complete, self-contained, safe whatever the names are, and no wider than a phone."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from normfold.codes import CODES
from normfold.reporting.html import render_html
from normfold.reporting.report import Report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "br", "path", "rect"}


class Page(HTMLParser):
    """Checks that elements close in order, and collects text, tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", ["report", "failed", "parted", "unusable"])
def test_is_well_formed(name: str, request: pytest.FixtureRequest) -> None:
    assert "main" in Page(render_html(request.getfixturevalue(name))).tags


def test_needs_no_network_and_runs_nothing(report: Report) -> None:
    text = render_html(report)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    assert not [
        name for name, _ in page.attributes if name in ("src", "href", "action") or name.startswith("on")
    ]
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_names_are_text(report: Report, hostile: str) -> None:
    text = render_html(report)
    assert "<script" not in text
    assert "\x1b" not in text and "\x00" not in text
    assert hostile.replace("\x1b", "�").replace("\x00", "�") in Page(text).text


def test_says_what_was_folded_and_why_the_rest_stayed(report: Report) -> None:
    text = Page(render_html(report)).text
    assert "bn1 (batchnorm, BatchNormalization): folded into bn1 by conv" in text
    code = CODES["NF105"]
    for part in (code.title, code.what, code.why, code.unblock, "is a graph output"):
        assert part in text


def test_draws_both_graphs(report: Report) -> None:
    text = render_html(report)
    before, after = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert before.count("<rect") == 4
    assert after.count("<rect") == 3
    assert 'class="site"' in before and 'class="target"' in after
    assert before.count("marker-end") == 4
    assert "8×3×3×3, scalar" in before


def test_ids_are_unique(report: Report) -> None:
    page = Page(render_html(Report("fold", tool=report.tool, runs=[report, report])))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == 4
    assert len(set(ids)) == len(ids)


def test_verdict_and_reasons(failed: Report) -> None:
    text = Page(render_html(failed)).text
    assert "VERIFICATION FAILED" in text
    assert "'bn1' is not proven: no luck" in text


def test_errors_of_each_output(report: Report) -> None:
    text = render_html(report)
    assert text.count('class="scale"') == 2
    assert "original 1e-07, folded 2e-07, bound 4e-07" in text


def test_errors_without_numbers(report: Report) -> None:
    report.verification.rounding[0] |= {"e0": None, "e1": None, "rms0": None, "rms1": None, "bound": None}
    report.verification.rounding[1] |= {"e0": 0.0, "e1": 0.0, "rms0": 0.0, "rms1": 0.0, "bound": 0.0}
    assert "Rounding error" not in render_html(report)


def columns(svg: str, model: str) -> list[tuple[float, float]]:
    """Left edge and height of each column."""
    pattern = rf'<rect class="{model}" x="([\d.]+)" y="[\d.]+" width="[\d.]+" height="([\d.]+)"'
    return [(float(x), float(height)) for x, height in re.findall(pattern, svg)]


def test_distribution_of_errors(parted: Report) -> None:
    (svg,) = re.findall(r'<svg class="histogram".*?</svg>', render_html(parted), re.DOTALL)
    assert 'aria-label="original: 0 of 100 elements beyond the bound; folded: 10 of 100 elements' in svg
    original, folded = columns(svg, "original"), columns(svg, "folded")
    assert [x for x, _ in original] == [1.0, 65.0, 129.0]
    assert [x for x, _ in folded] == [65.0, 129.0, 193.0, 257.0]
    heights = [height for _, height in original]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] / heights[2] == pytest.approx(np.log(91) / np.log(2), rel=0.02)
    assert 'class="bound" d="M192.0 0' in svg
    assert "<title>folded: 7 from 1 to 10 of the bound</title>" in svg


def test_without_a_place_nothing_is_said_of_one(failed: Report) -> None:
    assert "Where the models part" not in render_html(failed)


def test_place_where_the_models_part(parted: Report) -> None:
    text = render_html(parted)
    card = text.partition("Where the models part")[2].partition("<h2>")[0]
    pictures = re.findall(r"<svg.*?</svg>", card, re.DOTALL)
    assert [picture.count("<rect") for picture in pictures] == [3, 2]
    assert [picture.count('class="site"') for picture in pictures] == [2, 1]
    assert "<dt>Apart</dt><dd>0.5</dd>" in card and "<dt>Allowed</dt><dd>1e-06</dd>" in card


def test_is_made_for_phones_and_both_colour_schemes(report: Report) -> None:
    text = render_html(report)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "prefers-color-scheme: dark" in text


def chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs headless Chromium with a profile of its own and without background traffic."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
class TestInChromium:
    @pytest.mark.parametrize("width", [320, 390, 1280])
    def test_page_is_no_wider_than_the_screen(self, parted: Report, tmp_path: Path, width: int) -> None:
        page = render_html(parted).replace("<details ", "<details open ")
        frame = tmp_path / "frame.html"
        frame.write_text(
            f'<!DOCTYPE html><iframe width="{width}" height="900" style="border:0" srcdoc="{escape(page)}" '
            "onload=\"document.title = this.contentDocument.documentElement.scrollWidth + ' ' + "
            "this.contentDocument.querySelectorAll('svg').length\"></iframe>",
            encoding="utf-8",
        )
        dom = chromium(tmp_path, "--dump-dom", frame.as_uri()).stdout
        found = re.search(r"<title>(\d+) (\d+)</title>", dom)
        assert found is not None
        assert int(found[1]) <= width
        assert int(found[2]) == 5

    @pytest.mark.parametrize("width", [500, 1280])
    def test_screenshot(self, report: Report, tmp_path: Path, width: int) -> None:
        page, picture = tmp_path / "report.html", tmp_path / "shot.png"
        page.write_text(render_html(report), encoding="utf-8")
        chromium(tmp_path, f"--window-size={width},1500", f"--screenshot={picture}", page.as_uri())
        content = picture.read_bytes()
        assert struct.unpack(">II", content[16:24]) == (width, 1500)
        assert len(content) > 20_000
