"""Node.js with code that was compiled ahead behaves as without: the same programs both ways, on real interpreters."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stoker.packaging import landlock
from stoker.packaging.code_cache import MAGIC, PACK
from stoker.packaging.compile_job import TASK_MOUNT
from stoker.runtimes.catalog import BOOTSTRAPS
from tests.code_stores import compiling, opened
from tests.security.archives.zips import archive

ACCOUNT = "000000000000"
HOOK = BOOTSTRAPS / "nodejs" / "stoker" / "code_cache.cjs"
pytestmark = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")


def _interpreters() -> list[Path]:
    """The host's own, and those of the folder that STOKER_LANG_DIR names."""
    found = [Path(node)] if (node := shutil.which("node")) else []
    lang = os.environ.get("STOKER_LANG_DIR")
    return found + sorted(Path(lang).glob("nodejs*/node_modules/node/bin/node") if lang else [])


@pytest.fixture(params=_interpreters() or [None], ids=lambda node: node and str(node))
def node(request: pytest.FixtureRequest) -> Path:
    if request.param is None:
        pytest.skip("this host has no Node.js")
    return request.param


class Tree:
    """An admitted archive and its pack."""

    def __init__(self, folder: Path, node: Path) -> None:
        self._folder = folder
        self.node = node

    def make(self, files: dict[str, str], account: str = ACCOUNT) -> None:
        asyncio.run(self._make(files, account))

    async def _make(self, files: dict[str, str], account: str) -> None:
        store = await opened(self._folder, interpreter=self.node, compiles=True)
        assert store.bytecode is not None
        name = (
            await store.admit(archive(*((path, text.encode()) for path, text in files.items())))
        ).code_sha256
        made, nothing = await store.used(name, "nodejs20.x", account)
        assert nothing is None
        await store.bytecode.wait_compiled()
        _, cache = await store.used(name, "nodejs20.x", account)
        self.statistics = store.bytecode.statistics()
        # The cache goes with its store.
        self.task = self._folder / "kept" / "task"
        shutil.copytree(made, self.task, symlinks=True, dirs_exist_ok=True)
        self.cache = None if cache is None else self._folder / "kept" / cache.name
        if self.cache is not None:
            shutil.copytree(cache, self.cache, dirs_exist_ok=True)
        await store.end()

    def run(self, program: str, *, cached: bool, **environment: str) -> dict[str, Any]:
        """What ``program`` (which calls ``tell`` and knows ``load``) tells, and the files whose caches V8 took."""
        pack = f"{self.cache}/{PACK}"
        script = f"""
            const vm = require('vm'), path = require('path'), taken = [];
            vm.Script = class extends vm.Script {{
              constructor(text, options) {{
                super(text, options);
                if (options.cachedData && !this.cachedDataRejected) taken.push(path.basename(options.filename));
              }}
            }};
            const tell = (told) => process.stdout.write(JSON.stringify({{ told, taken }}));
            if ({json.dumps(cached)}) {{
              const installed = require({json.dumps(str(HOOK))}).install(process.cwd(), {json.dumps(pack)});
              if (!installed) throw new Error('not installed');
            }}
            const load = require('module').createRequire(process.cwd() + '/nothing.js');
            Error.stackTraceLimit = 30;
            setImmediate(async () => {{ {program} }});
        """
        main = self._folder / "main.cjs"
        main.write_text(script)
        done = subprocess.run(
            [self.node, main], cwd=self.task, capture_output=True, text=True, timeout=30, check=False,
            env={"PATH": os.environ["PATH"], **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        # Caches name files as sandboxes see them.
        return json.loads(done.stdout.replace(str(self.task), TASK_MOUNT)) | {"errors": done.stderr}

    def same(self, program: str, *taken: str, **environment: str) -> Any:
        """What ``program`` tells both ways, when that is the same and the caches of these files were used."""
        plain, cached = (self.run(program, cached=way, **environment) for way in (False, True))
        assert cached["told"] == plain["told"]
        assert cached["errors"] == plain["errors"]
        assert plain["taken"] == []
        assert cached["taken"] == list(taken)
        return plain["told"]


@pytest.fixture
def tree(tmp_path: Path, node: Path) -> Iterator[Tree]:
    yield Tree(tmp_path, node)
    assert os.listdir(compiling(tmp_path)) == []


CAUGHT = "try { %s } catch (error) { tell([String(error), error.stack, error.code]); }"


def test_stack_traces_and_positions(tree: Tree) -> None:
    tree.make(
        {
            "outer.js": "exports.inner = require('./lib/inner.js');",
            "lib/inner.js": "const early = 1;\n  function f() { throw new RangeError('deep'); }\n f();",
            "late.js": "  module.exports = () => { null.property; };",
        }
    )
    assert tree.statistics.files == 3
    told = tree.same(CAUGHT % "load('./outer.js')", "outer.js", "inner.js")
    assert f"{TASK_MOUNT}/lib/inner.js:2:24" in told[1]
    assert "Module._compile" in told[1]
    told = tree.same(CAUGHT % "load('./late.js')()", "late.js")
    assert f"{TASK_MOUNT}/late.js:1:33" in told[1]


def test_names_of_functions_in_stack_traces(tree: Tree) -> None:
    tree.make(
        {
            "names.js": "exports.handler = async () => { throw new Error('named'); };\n"
            "const own = () => null.x; class A { static b = () => own(); }; exports.a = { b() { A.b(); } };",
        }
    )
    program = CAUGHT % "await load('./names.js').handler()"
    assert "exports.handler" in tree.same(program, "names.js")[1]
    told = tree.same(CAUGHT % "load('./names.js').a.b()", "names.js")
    assert "at own " in told[1]
    assert "at Object.b" in told[1]


def test_errors_of_modules_that_are_missing_or_malformed(tree: Tree) -> None:
    tree.make(
        {
            "missing.js": "require('./nowhere.js');",
            "broken.js": "const a = 1;\nconst a = 2;",
            "asks.js": "require(42);",
        }
    )
    assert tree.statistics.files == 2
    told = tree.same(CAUGHT % "load('./missing.js')", "missing.js")
    assert "Require stack:" in told[0]
    tree.same(CAUGHT % "load('./asks.js')", "asks.js")
    plain, cached = (tree.run(CAUGHT % "load('./broken.js')", cached=way)["told"][1] for way in (False, True))
    assert "SyntaxError" in plain
    # What has no cache goes through two loaders.
    assert len(cached.splitlines()) == len(plain.splitlines()) + 1
    assert cached.splitlines()[:5] == plain.splitlines()[:5]


ABOUT = """
const seen = [this === exports, arguments.length, __filename, __dirname, module.id, module.loaded,
  module.parent && module.parent.filename, module.children.length, module.paths, require.main === process.mainModule,
  require.cache[__filename] === module, Object.keys(require).sort(), require.resolve('./child.js'),
  require.resolve.paths('x'), typeof require.extensions['.js'], module.require === require('module').prototype.require,
  require.name, require.length, new.target === undefined];
const child = require('./child.js');
exports.seen = [...seen, module.children.map((each) => each.filename), child.parent];
exports.text = String(function  spaced ( a,b ) { /* kept */ });
"""


def test_what_a_module_sees_of_itself(tree: Tree) -> None:
    tree.make(
        {
            "about.js": ABOUT,
            "child.js": "exports.parent = module.parent.filename;",
        }
    )
    told = tree.same("tell([load('./about.js'), load('./about.js').seen.length])", "about.js", "child.js")
    assert told[0]["text"] == "function  spaced ( a,b ) { /* kept */ }"


def test_cycles_dynamic_imports_and_modules_of_both_kinds(tree: Tree) -> None:
    tree.make(
        {
            "a.js": "exports.early = 1; exports.b = require('./b.js').seen; exports.late = 2;",
            "b.js": "exports.seen = { ...require('./a.js') };",
            "dynamic.cjs": "exports.load = () => import('./lib/module.mjs');",
            "lib/module.mjs": "import a from '../a.js'; export const url = import.meta.url; export { a };",
            "data.json": '{"x": 1}',
            "esm/package.json": '{"type": "module"}',
            "esm/x.js": "export const y = 2;",
            "#!.js": "#!/usr/bin/env node\nmodule.exports = 'after a hashbang';",
        }
    )
    assert tree.same("tell(load('./a.js'))", "a.js", "b.js") == {"early": 1, "b": {"early": 1}, "late": 2}
    told = tree.same("tell(await load('./dynamic.cjs').load())", "dynamic.cjs", "a.js", "b.js")
    assert told["url"] == f"file://{TASK_MOUNT}/lib/module.mjs"
    assert tree.same("tell((await import(process.cwd() + '/esm/x.js')).y)") == 2
    assert tree.same("tell([load('./#!.js'), load('./data.json').x])") == ["after a hashbang", 1]


def test_a_file_that_a_hook_rewrites_is_what_the_hook_made_of_it(tree: Tree) -> None:
    tree.make({"a.js": "module.exports = 'one';", "b.js": "module.exports = 'b';"})
    rewrite = """
        const Module = require('module'), own = Module._extensions['.js'];
        Module._extensions['.js'] = (module, filename) => {
          const compile = module._compile;
          module._compile = (content, name) => compile.call(module, content.replace("'one'", "'two'"), name);
          own(module, filename);
        };
        tell([load('./a.js'), load('./b.js')]);
    """
    # As long as before, which is all that V8 itself would look at.
    assert tree.same(rewrite, "b.js") == ["two", "b"]
    wrapped = """
        const Module = require('module'), wrap = Module.wrap;
        Module.wrap = (text) => wrap('const added = 3;' + text.replace("'one'", 'added'));
        tell(load('./a.js'));
    """
    assert tree.same(wrapped) == 3


def test_source_maps_work(tree: Tree) -> None:
    mapped = "throw new Error('mapped');\n//# sourceMappingURL=data:application/json;base64,"
    source = {"version": 3, "sources": ["original.ts"], "names": [], "mappings": "AAAAA"}
    tree.make({"a.js": mapped + base64.b64encode(json.dumps(source).encode()).decode()})
    program = CAUGHT % "load('./a.js')"
    with pytest.raises(AssertionError, match="not installed"):
        tree.run(program, cached=True, NODE_OPTIONS="--enable-source-maps")
    later = "process.setSourceMapsEnabled(true); " + program
    for told in (tree.run(later, cached=way)["told"] for way in (False, True)):
        assert "original.ts:1:1" in told[1]


def test_other_flags_of_v8_go_without(tree: Tree) -> None:
    tree.make({"a.js": "module.exports = 'one';"})
    assert tree.same("tell(load('./a.js'))", "a.js") == "one"
    assert (
        tree.same("tell(load('./a.js'))", NODE_OPTIONS="--stack-trace-limit=5 --max-old-space-size=90")
        == "one"
    )


@pytest.mark.parametrize("damage", ["nothing", "short", "magic", "index", "positions"])
def test_damaged_packs_cost_time_only(tree: Tree, damage: str) -> None:
    tree.make({"a.js": "module.exports = 'one';"})
    assert tree.cache is not None
    pack = tree.cache / PACK
    content = pack.read_bytes()
    start = len(MAGIC) + 4
    pack.write_bytes(
        {
            "nothing": b"",
            "short": content[:-100],
            "magic": b"x" + content[1:],
            "index": content[:start] + b"{" * 10 + content[start + 10 :],
            "positions": content.replace(b'"a.js":[0,', b'"a.js":[9,'),
        }[damage]
    )
    hook = json.dumps(str(HOOK))
    program = f"require({hook}).installIfAny(process.cwd()); tell(load('./a.js'))"
    if damage in ("nothing", "magic", "index"):
        with pytest.raises(AssertionError, match=r"code cache|JSON"):
            tree.run("tell(1)", cached=True)
        assert tree.run(program, cached=False)["told"] == "one"
        return
    assert tree.same("tell(load('./a.js'))") == "one"


def test_each_account_has_its_own(tree: Tree) -> None:
    files = {"a.js": "module.exports = 'one';"}
    tree.make(files)
    first = tree.cache
    tree.make(files, "111111111111")
    assert first is not None
    assert tree.cache is not None
    assert tree.cache != first
    assert tree.cache.parent == first.parent
    assert tree.statistics.files == 1
    tree.make(files)
    assert tree.cache == first
