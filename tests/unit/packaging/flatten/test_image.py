"""Layers merged and laid out, read back by an EROFS reader of its own; no process, no mount."""

import hashlib
import io
import random
import stat
import subprocess
import sys
import tarfile

import pytest

from stoker.packaging.chunks.sealing import CHUNK_BYTES
from stoker.packaging.flatten.image import DATA_START
from stoker.packaging.flatten.limits import LayerRefused
from stoker.packaging.flatten.users import User
from tests.images.flattening import tree_of
from tests.images.layers import Device, Fifo, File, Folder, Hardlink, Layer, Symlink, layer_tar

ADDED = {
    "/dev",
    "/proc",
    "/sys",
    "/tmp",
    "/opt",
    "/run",
    "/var",
    "/var/task",
    "/var/runtime",
    "/var/lang",
    "/etc",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "",
}


def paths(*layers: Layer | bytes) -> set[str]:
    return tree_of(*layers)[0].keys() - ADDED


def test_what_a_sandbox_needs_is_there() -> None:
    tree, _, _ = tree_of(
        {
            "tmp": Symlink("/etc"),
            "proc": b"a file",
            "etc/hosts": Symlink("/proc/self/environ"),
            "opt/mine": b"x",
        }
    )
    assert set(tree) == ADDED | {"/opt/mine"}
    assert all(stat.S_ISDIR(tree[path].mode) for path in ("/tmp", "/proc", "/dev", "/sys"))
    assert stat.S_ISREG(tree["/etc/hosts"].mode)
    assert tree["/etc/hosts"].content == b""
    assert tree["/tmp"].mode & 0o7777 == 0o1777


def test_attributes_arrive() -> None:
    tree, _, _ = tree_of(
        {
            "d": Folder(0o700, uid=5, gid=6, mtime_s=7),
            "d/f": File(
                b"content",
                mode=0o4755,
                uid=70_000,
                gid=80_000,
                mtime_s=1_700_000_000,
                xattrs={
                    "user.a": "b",
                    "trusted.overlay.opaque": "y",
                    "user.overlay.redirect": "/x",
                    "security.selinux": "z",
                },
            ),
            "d/l": Symlink("../anywhere"),
            "d/p": Fifo(),
        }
    )
    assert (tree["/d"].mode, tree["/d"].uid, tree["/d"].gid, tree["/d"].mtime_s) == (
        stat.S_IFDIR | 0o700,
        5,
        6,
        7,
    )
    seen = tree["/d/f"]
    assert (seen.mode, seen.uid, seen.gid, seen.mtime_s, seen.content) == (
        stat.S_IFREG | 0o4755,
        70_000,
        80_000,
        1_700_000_000,
        b"content",
    )
    assert seen.xattrs == {"user.a": b"b"}
    assert tree["/d/l"].content == b"../anywhere"
    assert stat.S_ISFIFO(tree["/d/p"].mode)


def test_whiteouts_hide_what_is_below_and_nothing_of_their_own_layer() -> None:
    base = {"a/one": b"1", "a/two": b"2", "b/one": b"1", "b/sub/two": b"2", "c": b"c"}
    assert paths(base, {"a/.wh.one": b"", ".wh.c": b""}) == {
        "/a",
        "/a/two",
        "/b",
        "/b/one",
        "/b/sub",
        "/b/sub/two",
    }
    for order in (["b/new", "b/.wh..wh..opq"], ["b/.wh..wh..opq", "b/new"]):
        assert paths(base, dict.fromkeys(order, b"")) >= {"/b/new", "/a/one"}
        assert not paths(base, dict.fromkeys(order, b"")) & {"/b/one", "/b/sub"}
    for order in (["b/one", "b/.wh.one"], ["b/.wh.one", "b/one"]):
        assert "/b/one" in paths(base, dict.fromkeys(order, b"again"))
    assert "/b/sub/three" in paths(base, {"b/sub/three": b"3", ".wh.b": b""})
    assert "/b/sub/two" not in paths(base, {"b/sub/three": b"3", ".wh.b": b""})
    assert paths(
        base, {".wh.nothing": b"", "none/.wh.x": b"", "none/.wh..wh..opq": b"", ".wh..wh.plnk": b""}
    ) == paths(base)


def test_a_whiteout_of_a_name_that_is_a_link_in_the_same_layer() -> None:
    assert "/x" in paths({"f": b"f", "x": b"x"}, {"x": Hardlink("f"), ".wh.x": b""})


def test_replacing_files_by_folders_and_back() -> None:
    assert paths({"x": b"file"}, {"x/below": b"now a folder"}) == {"/x", "/x/below"}
    assert paths({"x/below": b"a folder"}, {"x": b"now a file"}) == {"/x"}
    assert paths({"x/below": b"a folder"}, {"x": Folder(0o700)}) == {"/x", "/x/below"}
    assert (
        tree_of({"x": Symlink("y"), "y/": Folder()}, {"x": Folder(0o711), "x/z": b""})[0]["/x/z"].content
        == b""
    )
    assert "/y/z" not in paths({"x": Symlink("y"), "y/": Folder()}, {"x": Folder(0o711), "x/z": b""})


def test_a_folder_listed_again_keeps_its_files_and_takes_its_attributes() -> None:
    base = {"d": Folder(0o755, xattrs={"user.a": "1"}), "d/f": b"f", "d/e/g": b"g"}
    for xattrs in ({"user.a": "2"}, {"user.a": "something much longer"}, {}):
        tree, _, _ = tree_of(base, {"d": Folder(0o700, uid=9, mtime_s=99, xattrs=xattrs)}, {"d/h": b"h"})
        assert (tree["/d"].mode & 0o7777, tree["/d"].uid, tree["/d"].mtime_s) == (0o700, 9, 99)
        assert tree["/d"].xattrs == {name: value.encode() for name, value in xattrs.items()}
        assert tree["/d/f"].content == b"f"
        assert tree["/d/e/g"].content == b"g"
        assert tree["/d/h"].content == b"h"


def test_hard_links_also_across_layers() -> None:
    tree, _, _ = tree_of({"a": b"shared", "b": Hardlink("a")}, {"c": Hardlink("/a"), "a": b"another"})
    assert tree["/b"].number == tree["/c"].number != tree["/a"].number
    assert tree["/b"].links == 2
    assert tree["/b"].content == b"shared"
    assert tree["/a"].content == b"another"


def test_parents_that_are_links_lead_within_the_image() -> None:
    base = {
        "usr/lib": Folder(),
        "lib": Symlink("usr/lib"),
        "up": Symlink("../../../usr"),
        "rooted": Symlink("/usr/lib"),
        "gone": Symlink("made/later"),
    }
    tree = paths(base, {"lib/a": b"", "up/lib/b": b"", "rooted/c": b"", "gone/d": b""})
    assert tree >= {"/usr/lib/a", "/usr/lib/b", "/usr/lib/c", "/made/later/d"}
    tree = paths({**base, "usr/lib/x": b"", "usr/lib/y": b""}, {"lib/.wh.x": b""})
    assert "/usr/lib/x" not in tree
    assert "/usr/lib/y" in tree


def test_absolute_paths_and_dots_mean_the_root() -> None:
    assert paths({"/app/x": b"", "./app/y": b"", "././": Folder(0o711), "app//z": b""}) == {
        "/app",
        "/app/x",
        "/app/y",
        "/app/z",
    }
    assert tree_of({"./": Folder(0o711)})[0][""].mode & 0o777 == 0o711


@pytest.mark.parametrize(
    "layer",
    [
        {"../x": b""},
        {"a/../../x": b""},
        {"a/..": Folder()},
        {"x": Hardlink("../etc/passwd")},
        {"x": Hardlink("nowhere")},
        {"d": Folder(), "x": Hardlink("d")},
        {"kmem": Device(1, 2)},
        {"etc/dev/sda": Device(8, 0, block=True)},
        {"a": Symlink("b"), "b": Symlink("a"), "a/x": b""},
        {"a": b"file", "a/below": b""},
        {"x" * 256: b""},
        {"/".join(["d"] * 200): b""},
        {"d/" * 2100 + "x": b""},
        {".wh.": b""},
        {".wh...": b""},
        {".": b"the root is a file"},
        {"x": Symlink("")},
        {"x": File(uid=2**32)},
    ],
)  # fmt: skip
def test_refused(layer: Layer) -> None:
    with pytest.raises(LayerRefused) as refused:
        tree_of(layer)
    assert refused.value.kind == "invalid"


def test_devices_under_dev_are_dropped() -> None:
    assert paths({"dev/null": Device(1, 3), "dev/fd": Symlink("/proc/self/fd")}) == {"/dev/fd"}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_links(form: int) -> None:
    stream = io.BytesIO()
    name, target = "/".join(["n" * 90] * 8), "t" * 3000
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)
    tree, _, _ = tree_of(stream.getvalue())
    assert tree["/" + name].content == b"abc"
    assert tree["/link"].content == target.encode()


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", None), ("root", None), ("0:0", None),
        ("app", User(1000, 1001, "/home/app")),
        ("1000", User(1000, 1001, "/home/app")),
        ("app:staff", User(1000, 50, "/home/app")),
        ("7:8", User(7, 8, "/")),
        ("7", User(7, 0, "/")),
    ],
)  # fmt: skip
def test_users(user: str, expected: User | None) -> None:
    files = {
        "etc/passwd": "root:x:0:0:r:/root:/bin/sh\napp:x:1000:1001:a:/home/app:/bin/sh\nbad\n",
        "real/group": "staff:x:50:\n",
        "etc/group": Symlink("../real/group"),
    }
    assert tree_of(files, user=user)[1].user == expected


@pytest.mark.parametrize("user", ["nobody", "app", "0:nogroup", "-1", "99999999999"])
def test_unknown_users_are_refused(user: str) -> None:
    with pytest.raises(LayerRefused):
        tree_of(
            {"etc/passwd": "root:x:0:0:r:/root:/bin/sh\n"}, {"etc/passwd": "other:x:1:1::/:\n"}, user=user
        )


def random_files(seed: int, count: int, largest: int = 60_000) -> dict[str, bytes]:
    chance = random.Random(seed)
    return {
        f"usr/lib/p{chance.randrange(200)}/f{n}": chance.randbytes(chance.randrange(1, largest))
        for n in range(count)
    }


def digests(chunks: dict[int, bytes]) -> dict[bytes, int]:
    return {
        hashlib.sha256(chunk.rstrip(b"\0")).digest(): len(chunk.rstrip(b"\0")) for chunk in chunks.values()
    }


def new_bytes(of: dict[int, bytes], beside: dict[int, bytes]) -> int:
    known = digests(beside)
    return sum(size for name, size in digests(of).items() if name not in known)


BASE = random_files(1, 900)
BASE_BYTES = sum(map(len, BASE.values()))


def test_little_more_is_stored_than_the_layers_hold() -> None:
    _, _, chunks = tree_of(BASE, random_files(2, 100))
    content = BASE_BYTES + sum(map(len, random_files(2, 100).values()))
    assert sum(digests(chunks).values()) < 1.05 * content


def test_equal_layers_are_equal_chunks_whatever_is_above() -> None:
    _, _, alone = tree_of(BASE)
    _, _, below = tree_of(
        BASE, {"usr/lib/p1/added": b"x" * 100, "var/task/app.py": b"print()", ".wh.usr": b""}
    )
    data = {number: chunk for number, chunk in alone.items() if number * CHUNK_BYTES >= DATA_START}
    assert {number: below[number] for number in data} == data


def test_a_new_layer_on_top_stores_little_metadata_again() -> None:
    many = layer_tar({f"usr/lib/p{n // 50}/f{n}": File(mtime_s=1) for n in range(15_000)})
    _, _, base = tree_of(many)
    _, _, grown = tree_of(many, {"usr/lib/p1/added": b"x", "var/task/app.py": b"print()"})
    assert sum(digests(base).values()) > 2 * CHUNK_BYTES
    assert new_bytes(grown, base) < CHUNK_BYTES + 10_000


@pytest.mark.parametrize("where", [0, 450, 899])
def test_one_changed_line_in_a_big_layer_stores_its_neighbourhood_again(where: int) -> None:
    _, _, before = tree_of(BASE)
    name = sorted(BASE)[where]
    _, _, after = tree_of({**BASE, name: BASE[name] + b"one more line" * 60})
    assert 0 < new_bytes(after, before) < 0.25 * BASE_BYTES
    _, _, after = tree_of({**BASE, name: b"x" + BASE[name][1:]})
    assert 0 < new_bytes(after, before) <= CHUNK_BYTES


def test_the_order_of_the_tar_does_not_matter() -> None:
    shuffled = list(BASE.items())
    random.Random(3).shuffle(shuffled)
    assert tree_of(dict(shuffled))[2] == tree_of(BASE)[2]


def test_big_files_have_chunks_of_their_own() -> None:
    big = random.Random(4).randbytes(3 * CHUNK_BYTES + 1000)
    chunks = [tree_of({"a": b"1" * size, "big": big, "z": b"2" * size})[2] for size in (10, 70_000)]
    shared = digests(chunks[0]).keys() & digests(chunks[1]).keys()
    assert sum(digests(chunks[0])[name] for name in shared) >= len(big)


def test_every_process_makes_the_same_bytes() -> None:
    script = (
        "import hashlib; from tests.unit.packaging.flatten.test_image import *;"
        "print(hashlib.sha256(repr(sorted(tree_of(random_files(5, 50), {'usr/.wh.lib': b'', 'x': File(xattrs={'user.b': '1', 'user.a': '2'})})[2].items())).encode()).hexdigest())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "src:."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1


def test_an_empty_image_is_one() -> None:
    assert set(tree_of()[0]) == ADDED
    assert set(tree_of(layer_tar({}), b"")[0]) == ADDED
