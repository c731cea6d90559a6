"""Models behind URLs: staged here, published there at once or not at all."""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

import normfold
from normfold.errors import InputError, MissingDependency, OutputError
from normfold.loading.remote import remote_file

fsspec = pytest.importorskip("fsspec")

from fsspec.asyn import AsyncFileSystem  # noqa: E402 - it is optional
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402


class Store(AsyncFileSystem):  # type: ignore[misc]
    """As an object store: a put makes a whole object, and there is no move."""

    protocol = "teststore"
    objects: dict[str, bytes] = {}  # noqa: RUF012 - one for all, as a server
    puts: list[str] = []  # noqa: RUF012
    broken = False

    async def _put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        if self.broken:
            raise ConnectionResetError("connection\nreset")
        self.objects[self._strip_protocol(rpath)] = Path(lpath).read_bytes()
        self.puts.append(self._strip_protocol(rpath))

    async def _get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        Path(lpath).write_bytes(await self._cat_file(rpath))

    async def _cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
        try:
            return self.objects[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path).rstrip("/")
        if path in self.objects:
            return {"name": path, "type": "file", "size": len(self.objects[path])}
        if any(name.startswith(f"{path}/") for name in self.objects):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        prefix = self._strip_protocol(path).rstrip("/") + "/"
        below = {
            prefix + name[len(prefix) :].split("/")[0] for name in self.objects if name.startswith(prefix)
        }
        return [await self._info(name) for name in sorted(below)] if detail else sorted(below)

    async def _rm_file(self, path: str, **_: Any) -> None:
        del self.objects[self._strip_protocol(path)]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        import io

        assert mode == "rb"
        return io.BytesIO(self.cat_file(path))


fsspec.register_implementation("teststore", Store, clobber=True)


class Place:
    """A folder behind a URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.system, self.path = fsspec.core.url_to_fs(url)

    def write(self, name: str, source: Path) -> str:
        """Copies a file there."""
        self.system.put_file(str(source), f"{self.path}/{name}")
        return f"{self.url}/{name}"

    def names(self) -> list[str]:
        """All files, hidden ones too."""
        if not self.system.exists(self.path):
            return []
        return sorted(str(path)[len(self.path) + 1 :] for path in self.system.find(self.path))

    def read(self, name: str) -> bytes:
        content: bytes = self.system.cat_file(f"{self.path}/{name}")
        return content


NUMBERS = itertools.count()


@pytest.fixture(params=["memory", "teststore"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A new folder: in a file system with names that can be moved, and in an object store."""
    yield Place(f"{request.param}://bucket/{next(NUMBERS)}")


class TestOne:
    def test_from_and_to(self, place: Place, models: Path, tmp_path: Path) -> None:
        url = place.write("a.onnx", models / "a.onnx")
        result = normfold.fold(url, f"{place.url}/out/b.onnx")
        assert result.report.verification.verdict == "pass"
        assert result.report.inputs[0]["path"] == url
        assert result.report.outputs[0]["path"] == f"{place.url}/out/b.onnx"
        normfold.fold(models / "a.onnx", tmp_path / "b.onnx")
        assert place.names() == ["a.onnx", "out/b.onnx"]
        assert place.read("out/b.onnx") == (tmp_path / "b.onnx").read_bytes()

    def test_with_external_data(self, place: Place, models: Path, tmp_path: Path) -> None:
        url = place.write("in/c.onnx", models / "c.onnx")
        place.write("in/c.onnx.bin", models / "c.onnx.bin")
        report = normfold.fold(url, f"{place.url}/c.onnx").report
        (data,) = report.outputs[0]["data"]
        assert place.names() == sorted(["c.onnx", data["path"], "in/c.onnx", "in/c.onnx.bin"])
        for name in ("c.onnx", data["path"]):
            (tmp_path / name).write_bytes(place.read(name))
        assert normfold.verify(models / "c.onnx", tmp_path / "c.onnx").exit == 0
        onnx.checker.check_model(tmp_path / "c.onnx", full_check=True)

    def test_in_place(self, place: Place, models: Path) -> None:
        url = place.write("a.onnx", models / "a.onnx")
        assert normfold.fold(url, url, verify=False).changed
        before = place.read("a.onnx")
        assert not normfold.fold(url, url, verify=False).changed
        assert (place.names(), place.read("a.onnx")) == (["a.onnx"], before)

    def test_other_commands(self, place: Place, models: Path) -> None:
        url = place.write("a.onnx", models / "a.onnx")
        assert [site.site for site in normfold.inspect(url).sites] == ["n"]

    def test_missing_model(self, place: Place) -> None:
        with pytest.raises(InputError, match=r"none\.onnx: no such file") as caught:
            normfold.fold(f"{place.url}/none.onnx")
        assert caught.value.code == "NF901"

    def test_missing_data(self, place: Place, models: Path) -> None:
        url = place.write("c.onnx", models / "c.onnx")
        with pytest.raises(InputError, match="'w'") as caught:
            normfold.fold(url)
        assert caught.value.code == "NF909"

    @pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "a/../../b", "c:\\x"])
    def test_data_elsewhere(self, place: Place, models: Path, location: str) -> None:
        model = onnx.load(models / "c.onnx", load_external_data=False)
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.external_data)
        tensor.external_data[0].value = location
        (models / "bad.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(InputError) as caught:
            normfold.fold(place.write("bad.onnx", models / "bad.onnx"))
        assert caught.value.code in ("NF903", "NF910")


class TestPublishing:
    def break_connections(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The object store takes nothing; elsewhere half of the bytes arrive."""

        def fail(self: Any, source: str, target: str, **_: Any) -> None:
            self.pipe_file(target, Path(source).read_bytes()[:50])
            raise ConnectionResetError("connection\nreset")

        monkeypatch.setattr(MemoryFileSystem, "put_file", fail)
        monkeypatch.setattr(Store, "broken", True)

    def test_that_breaks_leaves_the_old_file(
        self, place: Place, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.write("out.onnx", models / "sub" / "b.onnx")
        before = place.read("out.onnx")
        with monkeypatch.context() as patch:
            self.break_connections(patch)
            with pytest.raises(OutputError, match="connection") as caught:
                normfold.fold(models / "c.onnx", f"{place.url}/out.onnx", verify=False)
        assert caught.value.code == "NF920"
        assert "\n" not in str(caught.value)
        assert place.names() == ["out.onnx"]
        assert place.read("out.onnx") == before

    def test_is_one_put_where_an_object_is_seen_when_it_is_whole(self, models: Path) -> None:
        place = Place(f"teststore://bucket/{next(NUMBERS)}")
        Store.puts.clear()
        report = normfold.fold(models / "c.onnx", f"{place.url}/c.onnx", verify=False).report
        data = report.outputs[0]["data"][0]["path"]
        assert Store.puts == [f"{place.path}/{data}", f"{place.path}/c.onnx"]

    def test_is_a_move_elsewhere(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        place = Place(f"memory://bucket/{next(NUMBERS)}")
        seen = []
        put = MemoryFileSystem.put_file

        def watched(self: Any, source: str, target: str, **options: Any) -> None:
            seen.append(target.rpartition("/")[2])
            put(self, source, target, **options)

        monkeypatch.setattr(MemoryFileSystem, "put_file", watched)
        normfold.fold(models / "a.onnx", f"{place.url}/a.onnx", verify=False)
        assert [name[:8] for name in seen] == [".a.onnx."]
        assert place.names() == ["a.onnx"]


class TestMany:
    def test_folder_to_folder_and_again(self, place: Place, models: Path) -> None:
        for path in models.rglob("*"):
            if path.is_file():
                place.write(f"in/{path.relative_to(models)}", path)
        first = normfold.fold_many([f"{place.url}/in/"], f"{place.url}/out", verify=False)
        assert first.exit == 0
        assert [entry["path"] for entry in first.outputs] == [
            f"{place.url}/out/{name}" for name in ("a.onnx", "c.onnx", "sub/b.onnx")
        ]
        again = normfold.fold_many([f"{place.url}/in/"], f"{place.url}/out", verify=False)
        assert again.summary["skipped"] == 3
        place.write("in/a.onnx", models / "sub" / "b.onnx")
        place.system.rm_file(f"{place.path}/out/sub/b.onnx")
        third = normfold.fold_many([f"{place.url}/in/**/*.onnx"], f"{place.url}/out", verify=False)
        assert [bool(run.summary.get("skipped")) for run in third.runs] == [False, True, False]

    def test_results_are_not_taken_again(self, place: Place, models: Path) -> None:
        place.write("a.onnx", models / "a.onnx")
        for _ in range(2):
            report = normfold.fold_many([f"{place.url}/"], f"{place.url}/out", verify=False)
            assert [entry["path"] for entry in report.inputs] == [f"{place.url}/a.onnx"]

    def test_nothing_there(self, place: Place) -> None:
        with pytest.raises(InputError):
            normfold.fold_many([f"{place.url}/none/*.onnx"], f"{place.url}/out")


class TestUnusable:
    def test_unknown_protocol(self, tools: Any) -> None:
        ended = tools.run("inspect", "nosuch://bucket/a.onnx")
        assert ended.code == 2
        (complaint,) = ended.err.splitlines()
        assert "nosuch" in complaint

    def test_without_fsspec(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def refuse(name: str, *arguments: Any, **options: Any) -> Any:
            if name == "fsspec":
                raise ImportError("No module named 'fsspec'")
            return real(name, *arguments, **options)

        monkeypatch.setattr(builtins, "__import__", refuse)
        with pytest.raises(MissingDependency, match=r"normfold\[remote\]"):
            remote_file("s3://bucket/a.onnx")

    def test_a_folder_is_no_model(self, place: Place, models: Path) -> None:
        place.write("in/a.onnx", models / "a.onnx")
        with pytest.raises(InputError, match="is a folder"):
            normfold.inspect(f"{place.url}/in")


class TestFileUrls:
    def test_are_paths(self, tools: Any, models: Path, tmp_path: Path) -> None:
        out = tmp_path / "o ut.onnx"
        ended = tools.run("fold", f"file://{models}/a.onnx", "-o", f"file://{tmp_path}/o%20ut.onnx")
        assert ended.code == 0
        assert out.exists()
        assert tools.temporaries(tmp_path) == []

    def test_of_another_machine(self) -> None:
        with pytest.raises(InputError, match="three slashes"):
            normfold.inspect("file://models/a.onnx")
