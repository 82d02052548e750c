"""What layers do to one tree: decided without a disk, so held against a simple model and a strict fake disk."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.images import trees
from traforo.worker.images.limits import Limits
from traforo.worker.images.tars import Entry, Kind

Path = trees.Path


def entry(
    name: str | bytes, kind: Kind = Kind.FILE, *, link: str = "", mode: int = 0o644, uid: int = 0, gid: int = 0
) -> Entry:
    raw = name.encode() if isinstance(name, str) else name
    return Entry(raw, kind, 0, mode, uid, gid, 0, link.encode(), 0)


def directory(name: str, mode: int = 0o755) -> Entry:
    return entry(name, Kind.DIRECTORY, mode=mode)


def symlink(name: str, target: str = "/etc") -> Entry:
    return entry(name, Kind.SYMLINK, link=target)


def hardlink(name: str, target: str) -> Entry:
    return entry(name, Kind.HARDLINK, link=target)


class Disk:
    """Carries out operations on a dictionary and refuses whatever a careful kernel would refuse."""

    def __init__(self) -> None:
        self.kinds: dict[Path, Kind] = {(): Kind.DIRECTORY}

    def perform(self, operation: trees.Operation) -> None:
        for depth in range(len(operation.path)):
            assert self.kinds.get(operation.path[:depth]) is Kind.DIRECTORY, f"{operation} leads through no directory"
        if isinstance(operation, trees.Remove):
            assert (self.kinds[operation.path] is Kind.DIRECTORY) == operation.directory
            gone = [path for path in self.kinds if path[: len(operation.path)] == operation.path]
            for path in gone:
                del self.kinds[path]
            return
        assert operation.path not in self.kinds, f"{operation} writes over something"
        match operation:
            case trees.MakeDirectory():
                self.kinds[operation.path] = Kind.DIRECTORY
            case trees.WriteFile():
                self.kinds[operation.path] = Kind.FILE
            case trees.MakeSymlink():
                self.kinds[operation.path] = Kind.SYMLINK
            case trees.MakeHardlink(target=target):
                assert self.kinds[target] in {Kind.FILE, Kind.SYMLINK}
                self.kinds[operation.path] = self.kinds[target]

    def shown(self) -> dict[str, str]:
        return {b"/".join(path).decode(): kind.value for path, kind in self.kinds.items() if path}


def apply(*layers: Sequence[Entry], limits: Limits | None = None) -> tuple[trees.Tree, Disk]:
    tree, disk = trees.Tree(limits or Limits()), Disk()
    for layer in layers:
        tree.next_layer()
        for one in layer:
            for operation in tree.apply(one):
                disk.perform(operation)
    assert {path for path, _ in tree.directories()} == {p for p, kind in disk.kinds.items() if kind is Kind.DIRECTORY}
    return tree, disk


def result(*layers: Sequence[Entry]) -> dict[str, str]:
    return apply(*layers)[1].shown()


def test_parents_that_are_only_implied_are_made() -> None:
    """A file needs no entry for its directories; one that comes later gives them its metadata."""
    tree, disk = apply([entry("a/b/c"), directory("a", mode=0o700)])
    assert disk.shown() == {"a": "directory", "a/b": "directory", "a/b/c": "file"}
    assert {path: metadata.mode for path, metadata in tree.directories()} == {
        (b"a", b"b"): 0o755,
        (b"a",): 0o700,
        (): 0o755,
    }


def test_directories_come_after_what_is_in_them() -> None:
    """Closing a directory before it is full would stop whoever is not root."""
    tree, _ = apply([directory("a/b/c"), directory("d")])
    order = [path for path, _ in tree.directories()]
    assert all(order.index(path) < order.index(path[:-1]) for path in order if path)


@pytest.mark.parametrize("name", ["/etc/passwd", "./etc/passwd", "//etc/./passwd", "etc//passwd"])
def test_names_are_taken_relative_to_the_root(name: str) -> None:
    """An absolute name means the root of the image, as container tools read it."""
    assert result([entry(name)]) == {"etc": "directory", "etc/passwd": "file"}


@pytest.mark.parametrize(
    "name, why",
    [
        (b"..", "has"),
        (b"../etc/passwd", "has"),
        (b"a/../../etc/passwd", "has"),
        (b"a/..", "has"),
        (b"a\0b", "NUL"),
        (b"x" * 256, "too long"),
        (b"/".join([b"x" * 200] * 21), "too long"),
        (b"/".join([b"x"] * 201), "directories deep"),
        (b"a/.wh.b/c", "whiteout"),
        (b".wh.", "whiteout of nothing"),
        (b".wh..", "whiteout of nothing"),
        (b".wh...", "whiteout of nothing"),
        (b"", "root must be a directory"),
        (b"./", "root must be a directory"),
    ],
)
def test_hostile_names_are_refused(name: bytes, why: str) -> None:
    """The error names the entry and says why."""
    with pytest.raises(errors.InvalidRequest, match=why) as caught:
        apply([entry(name)])
    assert "entry" in caught.value.fields


def test_odd_names_that_linux_allows_are_kept() -> None:
    """Line feeds, spaces and bytes that are no UTF-8 are names like others."""
    _, disk = apply([entry(b"a\nb"), entry(b" "), entry(b"\xff\xfe"), entry(b"-rf"), entry(b"..."), entry(b"..a")])
    assert set(disk.kinds) - {()} == {(b"a\nb",), (b" ",), (b"\xff\xfe",), (b"-rf",), (b"...",), (b"..a",)}


@pytest.mark.parametrize("uid", [65536, 2**40])
def test_owners_that_no_sandbox_has_are_refused(uid: int) -> None:
    """A sandbox has the ids 0 to 65535."""
    with pytest.raises(errors.InvalidRequest, match="above 65535"):
        apply([entry("a", uid=uid)])
    with pytest.raises(errors.InvalidRequest, match="above 65535"):
        apply([entry("a", gid=uid)])
    assert result([entry("a", uid=65535, gid=65535)]) == {"a": "file"}


class TestLinksInTheWay:
    @pytest.mark.parametrize("target", ["/", "/etc", "..", ".", "../../../../tmp", "a/b"])
    def test_a_name_through_a_link_of_the_same_layer_is_refused(self, target: str) -> None:
        with pytest.raises(errors.InvalidRequest, match='"a/link" is not a directory'):
            apply([symlink("a/link", target), entry("a/link/passwd")])

    def test_a_name_through_a_file_of_the_same_layer_is_refused(self) -> None:
        with pytest.raises(errors.InvalidRequest, match="is not a directory"):
            apply([entry("a"), entry("a/b")])

    def test_a_name_through_a_device_is_refused(self) -> None:
        with pytest.raises(errors.InvalidRequest, match="is not a directory"):
            apply([entry("a", Kind.SPECIAL), entry("a/b")])

    @pytest.mark.parametrize("below", [symlink("lib", "/etc"), entry("lib"), entry("lib", Kind.SPECIAL)])
    def test_of_a_lower_layer_it_is_replaced(self, below: Entry) -> None:
        """As an overlay of the layers shows it: the directory above hides the link below."""
        assert result([below], [entry("lib/x")]) == {"lib": "directory", "lib/x": "file"}

    def test_a_link_may_replace_a_directory_and_then_blocks_it(self) -> None:
        layers = [[directory("a"), entry("a/b")], [symlink("a"), entry("a/b")]]
        with pytest.raises(errors.InvalidRequest, match="is not a directory"):
            apply(*layers)

    def test_a_link_without_target_is_refused(self) -> None:
        with pytest.raises(errors.InvalidRequest, match="to nothing"):
            apply([symlink("a", "")])
        with pytest.raises(errors.InvalidRequest, match="to nothing"):
            apply([symlink("a", "b\0c")])
        with pytest.raises(errors.InvalidRequest, match="too long"):
            apply([symlink("a", "b" * 5000)])


class TestReplacing:
    def test_the_last_of_two_entries_counts(self) -> None:
        assert result([entry("a"), symlink("a")]) == {"a": "symlink"}
        assert result([symlink("a"), directory("a")]) == {"a": "directory"}
        assert result([directory("a"), entry("a/b"), entry("a")]) == {"a": "file"}

    def test_a_directory_again_keeps_what_is_in_it(self) -> None:
        tree, disk = apply([directory("a"), entry("a/b")], [directory("a", mode=0o711)])
        assert disk.shown() == {"a": "directory", "a/b": "file"}
        assert dict(tree.directories())[(b"a",)].mode == 0o711

    def test_a_file_is_never_written_in_place(self) -> None:
        """Its content may have a second name, which keeps what it had."""
        tree = trees.Tree(Limits())
        tree.apply(entry("a"))
        tree.apply(hardlink("b", "a"))
        assert tree.apply(entry("a")) == [
            trees.Remove((b"a",), directory=False),
            trees.WriteFile((b"a",), trees.Metadata(0o644)),
        ]

    def test_a_device_hides_what_was_there_and_is_not_made(self) -> None:
        assert result([entry("a")], [entry("a", Kind.SPECIAL)]) == {}
        assert result([entry("a", Kind.SPECIAL)], [entry("a")]) == {"a": "file"}
        assert result([directory("a"), entry("a/b")], [entry("a", Kind.SPECIAL)]) == {}


class TestHardLinks:
    def test_within_and_across_layers(self) -> None:
        assert result([entry("a"), hardlink("d/b", "/a")], [hardlink("c", "./a")]) == {
            "a": "file",
            "d": "directory",
            "d/b": "file",
            "c": "file",
        }

    def test_to_a_symbolic_link_is_another_name_of_the_link(self) -> None:
        assert result([symlink("a"), hardlink("b", "a")]) == {"a": "symlink", "b": "symlink"}

    def test_to_a_device_makes_nothing(self) -> None:
        assert result([entry("a", Kind.SPECIAL), hardlink("b", "a")]) == {}

    @pytest.mark.parametrize(
        "target, why",
        [
            ("missing", "does not exist"),
            ("../outside", "has"),
            ("/../../etc/shadow", "has"),
            ("dir", "is a directory"),
            ("", "is a directory"),
            ("link/passwd", "does not exist"),
            ("b", "to itself"),
            ("./b", "to itself"),
        ],
    )
    def test_to_anything_else_is_refused(self, target: str, why: str) -> None:
        with pytest.raises(errors.InvalidRequest, match=why):
            apply([directory("dir"), symlink("link", "/etc"), hardlink("b", target)])

    def test_to_what_it_replaces_is_refused(self) -> None:
        with pytest.raises(errors.InvalidRequest, match="does not exist"):
            apply([directory("d"), entry("d/file"), hardlink("d", "d/file")])


class TestWhiteouts:
    def test_a_whiteout_removes_what_is_below(self) -> None:
        assert result([entry("a"), entry("b")], [entry(".wh.a")]) == {"b": "file"}
        assert result([entry("d/a"), entry("b")], [entry(".wh.d")]) == {"b": "file"}
        assert result([symlink("a")], [entry(".wh.a")]) == {}

    def test_a_whiteout_does_not_go_through_a_link(self) -> None:
        layers = [[directory("d"), entry("d/a"), symlink("link", "d")], [entry("link/.wh.a")]]
        assert result(*layers) == {"d": "directory", "d/a": "file", "link": "symlink"}

    def test_a_whiteout_of_nothing_there_is_fine(self) -> None:
        assert result([entry("a")], [entry(".wh.b"), entry("x/.wh.b")]) == {"a": "file"}

    @pytest.mark.parametrize("order", [1, -1])
    def test_what_the_same_layer_brings_stays(self, order: int) -> None:
        """Whichever comes first: a whiteout is about lower layers alone."""
        assert result([entry("a")], [entry(".wh.a"), entry("a")][::order]) == {"a": "file"}
        assert result([entry("d/old")], [entry(".wh.d"), entry("d/new")][::order]) == {
            "d": "directory",
            "d/new": "file",
        }

    @pytest.mark.parametrize("order", [1, -1])
    def test_an_opaque_directory_hides_what_is_below(self, order: int) -> None:
        lower = [entry("d/old"), entry("d/sub/old"), entry("other")]
        upper = [directory("d"), entry("d/.wh..wh..opq"), entry("d/sub/new")][::order]
        assert result(lower, upper) == {
            "other": "file",
            "d": "directory",
            "d/sub": "directory",
            "d/sub/new": "file",
        }

    def test_the_root_may_be_opaque(self) -> None:
        assert result([entry("a"), entry("d/b")], [entry(".wh..wh..opq"), entry("c")]) == {"c": "file"}

    def test_an_opaque_mark_where_nothing_is(self) -> None:
        assert result([entry("a")], [entry("a/.wh..wh..opq"), entry("b/.wh..wh..opq")]) == {"a": "file"}

    def test_names_of_storage_drivers_are_passed_over(self) -> None:
        assert result([entry(".wh..wh.aufs"), entry(".wh..wh.plnk/1.2"), entry("d/.wh..wh.orph")]) == {}

    def test_layers_count_anew(self) -> None:
        """What was new in one layer is old in the next, and can be hidden there."""
        assert result([entry("a")], [entry(".wh.a"), entry("a")], [entry(".wh.a")]) == {}
        opaque = [entry("d/.wh..wh..opq"), entry("d/x")]
        assert result([entry("d/a")], opaque, opaque, [entry("d/.wh..wh..opq")]) == {"d": "directory"}


class TestLimits:
    def test_entries_and_implied_directories_count(self) -> None:
        limits = Limits(entries=3)
        apply([entry("a/b/c")], limits=limits)
        with pytest.raises(errors.TooLarge, match="more than 3 entries") as caught:
            apply([entry("a/b/c"), entry("d")], limits=limits)
        assert caught.value.fields["limit"] == 3

    def test_entries_that_make_nothing_count(self) -> None:
        with pytest.raises(errors.TooLarge):
            apply([entry(".wh.a")] * 4, limits=Limits(entries=3))

    def test_names_count(self) -> None:
        apply([entry("abc/de")], limits=Limits(name_bytes=5))
        with pytest.raises(errors.TooLarge, match="names"):
            apply([entry("abc/def")], limits=Limits(name_bytes=5))


class TestEnsure:
    def test_makes_what_is_missing(self) -> None:
        tree, disk = apply([directory("etc")])
        for operation in tree.ensure((b"etc", b"hosts"), Kind.FILE, 0o644):
            disk.perform(operation)
        for operation in tree.ensure((b"a", b"b"), Kind.DIRECTORY, 0o700):
            disk.perform(operation)
        assert disk.shown() == {"etc": "directory", "etc/hosts": "file", "a": "directory", "a/b": "directory"}
        assert {path: metadata.mode for path, metadata in tree.directories()} == {
            (b"etc",): 0o755,
            (b"a",): 0o755,
            (b"a", b"b"): 0o700,
            (): 0o755,
        }

    def test_leaves_what_is_there(self) -> None:
        tree, _ = apply([symlink("etc"), directory("tmp", mode=0o700), entry("proc")])
        assert tree.ensure((b"etc", b"hosts"), Kind.FILE, 0o644) == []
        assert tree.ensure((b"tmp",), Kind.DIRECTORY, 0o1777) == []
        assert tree.ensure((b"proc",), Kind.DIRECTORY, 0o555) == []
        assert tree.ensure((), Kind.DIRECTORY, 0o555) == []


names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
any_entries = st.one_of(
    paths.map(entry),
    paths.map(directory),
    paths.map(symlink),
    paths.map(lambda path: entry(path, Kind.SPECIAL)),
    st.builds(hardlink, paths, paths),
    paths.map(lambda path: entry("/".join([*path.split("/")[:-1], ".wh." + path.split("/")[-1]]))),
    paths.map(lambda path: entry(f"{path}/.wh..wh..opq")),
)


@given(st.lists(st.lists(any_entries, max_size=8), max_size=4))
@settings(deadline=None)
def test_no_operation_ever_leads_through_a_link_or_over_something(layers: list[list[Entry]]) -> None:
    """Whatever entries come, in whatever order: the strict disk accepts every operation, or the entry is refused."""
    with contextlib.suppress(errors.InvalidRequest):
        apply(*layers)


class Layer:
    """One layer without contradictions, as the specification describes it: what it brings and what it hides."""

    def __init__(self, brings: dict[str, Kind], hides: set[str], opaque: set[str]) -> None:
        self.brings = {path: kind for path, kind in brings.items() if self._fits(path, brings)}
        self.hides = hides
        self.opaque = {path for path in opaque if self._fits(f"{path}/x", brings)}

    @staticmethod
    def _fits(path: str, brings: dict[str, Kind]) -> bool:
        parents = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)]
        return all(brings.get(parent, Kind.DIRECTORY) is Kind.DIRECTORY for parent in parents)

    def entries(self) -> list[Entry]:
        whiteouts = [entry("/".join([*path.split("/")[:-1], ".wh." + path.split("/")[-1]])) for path in self.hides]
        marks = [entry(f"{path}/.wh..wh..opq") for path in self.opaque]
        return [*(entry(path, kind, link="t") for path, kind in self.brings.items()), *whiteouts, *marks]

    def over(self, lower: dict[str, str]) -> dict[str, str]:
        """Return what an overlay mount of this layer over `lower` shows."""
        own: dict[str, str] = {}
        for path, kind in self.brings.items():
            for depth in range(1, path.count("/") + 1):
                own.setdefault("/".join(path.split("/")[:depth]), "directory")
            own[path] = kind.value
        shown = {path: kind for path, kind in lower.items() if not self._hidden(path, own)}
        return shown | own

    def _hidden(self, path: str, own: dict[str, str]) -> bool:
        parts = path.split("/")
        prefixes = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        if any(prefix in self.hides for prefix in prefixes):
            return True
        if any(prefix in self.opaque for prefix in prefixes[:-1]):
            return True
        return any(own.get(prefix, "directory") != "directory" for prefix in prefixes)


layers_without_contradictions = st.builds(
    Layer,
    st.dictionaries(paths, st.sampled_from([Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK]), max_size=6),
    st.sets(paths, max_size=2),
    st.sets(paths, max_size=2),
)


@given(st.lists(layers_without_contradictions, max_size=4), st.data())
@settings(deadline=None)
def test_shows_what_an_overlay_of_the_layers_shows(layers: list[Layer], data: st.DataObject) -> None:
    """However the entries of each layer are ordered."""
    expected: dict[str, str] = {}
    streams = []
    for layer in layers:
        expected = layer.over(expected)
        streams.append(data.draw(st.permutations(layer.entries())))
    assert result(*streams) == expected
