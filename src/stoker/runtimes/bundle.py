"""Makes one file of the Node.js bootstrap: reading and wrapping a dozen of them slows every start."""

import re
from pathlib import Path

_LOCAL_REQUIRE = re.compile(r"require\('\./(?:stoker/)?([a-z_]+\.cjs)'\)")
_PRELUDE = """\
'use strict';
const bundledFiles = {};
const bundledModules = {};
function bundled(name) {
  if (!(name in bundledModules)) {
    const module = { exports: {} };
    bundledModules[name] = module;
    bundledFiles[name](module, module.exports);
  }
  return bundledModules[name].exports;
}
"""


def bundle_nodejs(folder: Path) -> str:
    """One CommonJS file that behaves as ``bootstrap.cjs`` with the modules beside it in ``stoker/``.

    A module still runs only when it is first required, so what only failures need stays unparsed until then.
    """
    parts = [_PRELUDE]
    for path in sorted((folder / "stoker").glob("*.cjs")):
        body = _rewritten(path)
        parts.append(f"bundledFiles['{path.name}'] = (module, exports) => {{\n{body}}};\n")
    parts.append(_rewritten(folder / "bootstrap.cjs"))
    return "".join(parts)


def _rewritten(path: Path) -> str:
    return _LOCAL_REQUIRE.sub(r"bundled('\1')", path.read_text("utf-8"))
