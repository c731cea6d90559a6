"""Which files a batch takes, and where their results go."""

from __future__ import annotations

from pathlib import Path

import pytest

from normfold.batch.selection import is_many, select
from normfold.errors import InputError

ALL = {"in/a.onnx": "a.onnx", "in/sub/a.onnx": "sub/a.onnx", "in/sub/deep/z.ONNX": "sub/deep/z.ONNX"}


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models, hidden ones, and what is none."""
    for name in (
        *ALL,
        "in/notes.txt",
        "in/.hidden/h.onnx",
        "in/.h.onnx",
        "other/a.onnx",
        "odd[1].onnx",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def taken(*arguments: str, output: str | None = "out") -> dict[str, str]:
    return {model.source: model.relative for model in select(arguments, output)}


class TestFolders:
    @pytest.mark.parametrize("name", ["in", "in/", "./in"])
    def test_with_their_sub_folders(self, name: str) -> None:
        assert taken(name) == ALL

    def test_as_a_file_url(self, tree: Path) -> None:
        assert list(taken(f"file://{tree}/in").values()) == list(ALL.values())

    def test_results_are_not_taken_again(self) -> None:
        Path("in/out").mkdir()
        Path("in/out/a.onnx").touch()
        assert taken("in", output="in/out") == ALL
        assert taken("in/**/*.onnx", output="in/out").keys() == {"in/a.onnx", "in/sub/a.onnx"}

    def test_in_place(self) -> None:
        assert taken("in", output="in") == ALL

    def test_links_to_files_but_not_to_folders(self) -> None:
        Path("in/link.onnx").symlink_to("../other/a.onnx")
        Path("in/loop").symlink_to(".")
        assert taken("in") == ALL | {"in/link.onnx": "link.onnx"}

    def test_without_models(self) -> None:
        Path("empty").mkdir()
        with pytest.raises(InputError, match=r"empty: no \.onnx file"):
            select(["empty"], "out")


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("in/*.onnx", {"in/a.onnx": "a.onnx"}),
            ("in/**/a.onnx", {"in/a.onnx": "a.onnx", "in/sub/a.onnx": "sub/a.onnx"}),
            ("in/s*/a.onnx", {"in/sub/a.onnx": "sub/a.onnx"}),
            ("in/*", {"in/a.onnx": "a.onnx"}),
            ("i?/[a-c].onnx", {"in/a.onnx": "in/a.onnx"}),
        ],
    )
    def test_keep_the_path_behind_their_fixed_part(self, pattern: str, found: dict[str, str]) -> None:
        assert taken(pattern) == found

    def test_from_the_root(self, tree: Path) -> None:
        assert taken(f"{tree}/in/*.onnx") == {f"{tree}/in/a.onnx": "a.onnx"}

    def test_that_match_nothing(self) -> None:
        with pytest.raises(InputError, match=r"none\*: no \.onnx file"):
            select(["none*"], "out")

    def test_a_file_of_that_name_is_that_file(self) -> None:
        assert not is_many("odd[1].onnx")
        assert taken("odd[1].onnx") == {"odd[1].onnx": "odd[1].onnx"}


class TestNames:
    def test_two_results_of_one_name(self) -> None:
        with pytest.raises(InputError, match=r"in/a\.onnx and other/a\.onnx would be written to the same"):
            select(["in", "other/a.onnx"], "out")

    def test_matter_only_where_something_is_written(self) -> None:
        assert len(select(["in", "other"], None)) == 4

    def test_order_is_that_of_the_arguments(self) -> None:
        assert list(taken("odd[1].onnx", "in/sub", "other/a.onnx", output=None)) == [
            "odd[1].onnx",
            "in/sub/a.onnx",
            "in/sub/deep/z.ONNX",
            "other/a.onnx",
        ]


@pytest.mark.parametrize(
    ("name", "many"),
    [
        ("in", True),
        ("in/*", True),
        ("in/a.onnx", False),
        ("none.onnx", False),
        ("-", False),
        ("s3://bucket/a.onnx", False),
        ("s3://bucket/", True),
        ("s3://bucket/*.onnx", True),
    ],
)
def test_what_stands_for_many(name: str, many: bool) -> None:
    assert is_many(name) is many
