"""What every adapter of CodeStore promises."""

import base64
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from stoker.core.errors import ServiceError
from stoker.packaging.memory import MemoryCodeStore
from stoker.services.code import CodeKey, CodeMissing, CodeStore, code_name
from stoker.services.keys import KeyRefused
from stoker.store.memory_keys import MemoryDataKeys
from tests.code_stores import opened


@pytest.fixture(params=["memory", "sealed"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CodeStore]:
    if request.param == "memory":
        yield MemoryCodeStore(tmp_path / "code")
        return
    made = await opened(tmp_path)
    yield made
    await made.end()


ACCOUNT = "000000000000"
Refuse = Callable[[], None]


def archive(**members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name.replace("__", "/"), content)
    return stream.getvalue()


def sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


async def ready(store: CodeStore, name: str) -> Path:
    """Its tree, in use to the end of the test."""
    task = (await store.use(name, (), None, ACCOUNT)).task
    assert isinstance(task, Path)
    return task


async def test_admitted_code_is_ready_and_its_original_unchanged(store: CodeStore) -> None:
    content = archive(main="print()", pkg__inner="x = 1")
    admitted = await store.admit(content)
    assert admitted.code_sha256 == sha256(content)
    assert admitted.size_bytes == len(content)
    assert admitted.unpacked_bytes == len("print()") + len("x = 1")
    tree = await ready(store, admitted.code_sha256)
    assert (tree / "main").read_text() == "print()"
    assert (tree / "pkg" / "inner").read_text() == "x = 1"
    original = await store.original(admitted.code_sha256)
    assert original is not None
    assert original.read_bytes() == content


async def test_admitting_from_a_file_leaves_the_file(store: CodeStore, tmp_path: Path) -> None:
    content = archive(main="a" * 200_000)
    file = tmp_path / "upload"
    file.write_bytes(content)
    assert (await store.admit(file)).code_sha256 == sha256(content)
    assert file.read_bytes() == content


async def test_admitting_twice_is_one(store: CodeStore) -> None:
    content = archive(main="print()")
    assert await store.admit(content) == await store.admit(content)
    assert await store.stored() == [sha256(content)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Uploaded file must be a non-empty zip"),
        (
            b"not a zip",
            "Could not unzip uploaded file. Please check your file, then try to upload again.",
        ),
    ],
)
async def test_what_is_no_zip_is_refused_in_lambdas_words(
    store: CodeStore, content: bytes, message: str
) -> None:
    with pytest.raises(ServiceError) as refused:
        await store.admit(content)
    assert (refused.value.code, refused.value.message) == ("InvalidParameterValueException", message)
    assert await store.stored() == []


async def test_unknown_code_is_missing(store: CodeStore) -> None:
    unknown = sha256(b"never admitted")
    assert await store.original(unknown) is None
    with pytest.raises(CodeMissing):
        await ready(store, unknown)
    await store.forget(unknown)


async def test_forgotten_code_is_gone_and_can_come_back(store: CodeStore) -> None:
    content = archive(main="print()")
    name = (await store.admit(content)).code_sha256
    await store.forget(name)
    assert await store.stored() == []
    assert await store.original(name) is None
    with pytest.raises(CodeMissing):
        await ready(store, name)
    await store.admit(content)
    assert ((await ready(store, name)) / "main").read_text() == "print()"


async def test_preparing_changes_no_file_that_was_uploaded(store: CodeStore) -> None:
    name = (await store.admit(archive(**{"main.py": "x = 1"}))).code_sha256
    for runtime in ("python3.11", "nodejs20.x", "python9.9", None):
        await store.prepare(name, (name,), runtime, ACCOUNT)
        in_use = await store.use(name, (), runtime, ACCOUNT)
        assert isinstance(in_use.task, Path)
        assert (in_use.task / "main.py").read_text() == "x = 1"
        in_use.leave()
    with pytest.raises(CodeMissing):
        await store.prepare(sha256(b"never admitted"), (), "python3.11", ACCOUNT)


async def test_code_in_use_outlives_being_forgotten(store: CodeStore) -> None:
    names = [(await store.admit(archive(main=text))).code_sha256 for text in ("a", "b", "c")]
    in_use = await store.use(names[0], (names[1], names[2]), "python3.11", ACCOUNT)
    for name in names:
        await store.forget(name)
    assert isinstance(in_use.task, Path)
    assert isinstance(in_use.opt, Path)
    assert (in_use.task / "main").read_text() == "a"
    assert (in_use.opt / "main").read_text() == "c"
    in_use.leave()


async def test_layers_are_merged_in_their_order(store: CodeStore) -> None:
    one = archive(both="one", one="1", folder__x="one", folder__y="one")
    two = archive(both="two", two="2", folder__x="two", folder__z="two")
    first, second = [(await store.admit(content)).code_sha256 for content in (one, two)]
    for layers, wins in (((first, second), "two"), ((second, first), "one")):
        in_use = await store.use(first, layers, None, ACCOUNT)
        merged = in_use.opt
        assert isinstance(merged, Path)
        assert {file.name for file in merged.rglob("*")} == {"both", "one", "two", "folder", "x", "y", "z"}
        assert [(merged / name).read_text() for name in ("both", "folder/x")] == [wins, wins]
        again = await store.use(second, layers, None, ACCOUNT)
        assert again.opt == merged
        again.leave()
        in_use.leave()
    alone = await store.use(second, (first,), None, ACCOUNT)
    assert isinstance(alone.opt, Path)
    assert (alone.opt / "both").read_text() == "one"
    alone.leave()
    assert ((await ready(store, first)) / "both").read_text() == "one"


async def test_layers_that_are_not_here_are_missing(store: CodeStore) -> None:
    known = (await store.admit(archive(a="a"))).code_sha256
    for layers in ((known, sha256(b"never")), (sha256(b"never"),)):
        with pytest.raises(CodeMissing):
            await store.use(known, layers, None, ACCOUNT)


async def test_what_is_known_of_code(store: CodeStore) -> None:
    admitted = await store.admit(archive(a="abc"))
    assert await store.artifact(admitted.code_sha256) == admitted
    assert await store.artifact(sha256(b"never")) is None


KEY = CodeKey("arn:aws:lambda:us-east-1:000000000000:function:f", "arn:aws:kms:us-east-1:000000000000:key/k")


@pytest.fixture
async def keyed_store(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[CodeStore, Refuse]]:
    """A store, and what makes the key refuse from now on."""
    refusal = KeyRefused("DisabledException", "it is disabled")
    if request.param == "memory":
        fake = MemoryCodeStore(tmp_path / "code")
        yield fake, lambda: fake.refused_keys.update({KEY.kms_key_arn: refusal})
        return
    keys = MemoryDataKeys()
    made = await opened(tmp_path, keys=keys)
    yield made, lambda: setattr(keys, "failure", refusal)
    await made.end()


both = pytest.mark.parametrize("keyed_store", ["memory", "sealed"], indirect=True)


@both
async def test_code_under_a_key_is_another_than_the_same_code_without(
    keyed_store: tuple[CodeStore, Refuse],
) -> None:
    store, _ = keyed_store
    content = archive(main="print()")
    plain, keyed = await store.admit(content), await store.admit(content, KEY)
    name = code_name(keyed.code_sha256, KEY)
    assert plain == keyed == await store.artifact(name)
    assert sorted(await store.stored()) == sorted([plain.code_sha256, name])
    await store.forget(plain.code_sha256)
    assert (await ready(store, name) / "main").read_text() == "print()"
    await store.try_key(name)
    await store.try_key(sha256(b"nobody's"))


@both
async def test_a_key_that_refuses_ends_new_uses(keyed_store: tuple[CodeStore, Refuse]) -> None:
    store, refuse = keyed_store
    content = archive(main="print()")
    name = code_name((await store.admit(content, KEY)).code_sha256, KEY)
    await ready(store, name)
    refuse()
    with pytest.raises(KeyRefused):
        await store.use(name, (), None, ACCOUNT)
    with pytest.raises(KeyRefused):
        await store.try_key(name)
    with pytest.raises(KeyRefused):
        await store.admit(archive(main="other"), KEY)
    with pytest.raises(KeyRefused):
        await store.admit(content, KEY)
    assert await store.stored() == [name]
