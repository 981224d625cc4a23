// Spares V8 compiling a function's CommonJS files: Stoker compiled them, without running them, for this archive.
// What it cannot prove to be the same goes Node's own way (one more line in stack traces while that is loaded).
'use strict';

const { closeSync, existsSync, openSync, readFileSync, readSync } = require('fs');
const Module = require('module');

const PACK = '/var/codecache/pack';
const MAGIC = 'stoker-code-cache/1\n';
const PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];
const STUB = 'return [arguments, (specifier, options) => import(specifier, options)]';

function readAt(file, bytes, position) {
  const buffer = Buffer.allocUnsafeSlow(bytes);
  if (readSync(file, buffer, 0, bytes, position) !== bytes) throw new Error('the code cache is cut off');
  return buffer;
}

// Where each file's cache is: {path below the root: [position, bytes]}. Closed again each time: the function's first
// descriptor has the same number with a cache and without.
function open(pack) {
  const file = openSync(pack);
  try {
    const head = readAt(file, MAGIC.length + 4, 0);
    if (head.toString('latin1', 0, MAGIC.length) !== MAGIC) throw new Error('not a code cache');
    const bytes = head.readUInt32LE(MAGIC.length);
    return { index: JSON.parse(readAt(file, bytes, head.length).toString()), start: head.length + bytes };
  } finally {
    closeSync(file);
  }
}

function read(pack, position, bytes) {
  const file = openSync(pack);
  try {
    return readAt(file, bytes, position);
  } finally {
    closeSync(file);
  }
}

function parse(result) {
  const end = 4 + result.readUInt32LE(0);
  return { about: JSON.parse(result.toString('utf8', 4, end)), cachedData: result.subarray(end) };
}

// The text with `name` for each import() of it, which a cache would lose.
function renamed(text, { name, positions }) {
  const parts = [];
  let from = 0;
  for (const position of positions) {
    parts.push(text.slice(from, position), name);
    from = position + name.length;
  }
  return from ? parts.join('') + text.slice(from) : text;
}

// Where Node's loader shows in stack traces while a module runs: file, line and column of its call.
function frameOfLoader() {
  const { prepareStackTrace } = Error;
  const probe = new Module('');
  try {
    Error.prepareStackTrace = (_, sites) => sites;
    probe._compile('module.exports = new Error().stack', '');
    const site = probe.exports.find((each) => each.getFileName()?.startsWith('node:'));
    return { filename: site.getFileName(), line: site.getLineNumber(), column: site.getColumnNumber() };
  } finally {
    Error.prepareStackTrace = prepareStackTrace;
  }
}

// Put our `_compile` into place: it calls modules from where Node's does, so that stack traces are the same.
function replace({ filename, line, column }, vm, compiled) {
  const own = Module.prototype._compile;
  const parameters = ['content', 'filename', 'format'].slice(0, own.length);
  const head =
    '(Module, own, compiled, apply, executing) => { Module.prototype._compile = ' +
    `function (${parameters}) { const run = compiled(this, arguments);` +
    ' if (run === undefined) return apply(own, this, arguments);' +
    ' executing(this, true); try { return (';
  const call = `${' '.repeat(Math.max(0, column - 1))}apply(run.code, this.exports, run.values)`;
  const source = `${head}\n${call}); } finally { executing(this, false); } } }`;
  vm.runInThisContext(source, { filename, lineOffset: line - 2 })(Module, own, compiled, Reflect.apply, executing);
}

// Later versions of Node mark a module while it runs, to refuse that an ES module which it requires imports it.
function executing(module, now) {
  const mark = Object.getOwnPropertySymbols(module).find((each) => each.description === 'kIsExecuting');
  if (mark !== undefined) module[mark] = now;
}

const wantsNodesOwn = () => process.sourceMapsEnabled || process.env.NODE_V8_COVERAGE !== undefined;

// Use the cache for files below `root`. False: there is none, or this Node cannot.
function install(root, pack = PACK) {
  if (!existsSync(pack) || wantsNodesOwn()) return false;
  const vm = require('vm');
  // For what eval() compiles; without a cache it would need no telling.
  const importModuleDynamically = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;
  const { index, start } = open(pack);
  const own = Module.prototype._compile;
  const { wrap } = Module;
  const below = `${root}/`;

  // The compiled file and its arguments; undefined where Node is to do it.
  function compiled(module, [content, filename, format]) {
    const name = filename?.startsWith?.(below) ? filename.slice(below.length) : '';
    if (!Object.hasOwn(index, name) || Module.wrap !== wrap || wantsNodesOwn()) return undefined;
    if (format !== undefined && format !== 'commonjs') return undefined;
    // V8 compares lengths only: what a hook of the function made of a file is not what was compiled.
    if (content !== readFileSync(filename, 'utf8')) return undefined;
    const [position, bytes] = index[name];
    const { about, cachedData } = parse(read(pack, start + position, bytes));
    const head = `(function (${(about.name ? [...PARAMETERS, about.name] : PARAMETERS).join(', ')}) { `;
    const options = { filename, columnOffset: -head.length, cachedData, importModuleDynamically };
    const script = new vm.Script(`${head}${renamed(content, about)}\n})`, options);
    if (script.cachedDataRejected) return undefined;
    const code = script.runInThisContext();
    // All that Node does around a module but its own compiling; and import() from where the module is.
    const [values, importing] = Reflect.apply(own, module, [STUB, filename, format]);
    return { code, values: about.name ? [...values, importing] : values };
  }

  replace(frameOfLoader(), vm, (module, given) => {
    try {
      return compiled(module, given);
    } catch {
      return undefined;
    }
  });
  return true;
}

// A cache that cannot be used only costs time.
function installIfAny(root) {
  try {
    return install(root);
  } catch {
    return false;
  }
}

module.exports = { install, installIfAny };
