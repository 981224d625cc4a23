// Compiles CommonJS files one by one without running them; its text is run by the Node.js of a runtime.
// Works with Node.js 20.12 and later and trusts nothing it reads: it was confined before it started. Standard input
// lists files below the working directory, numbered from 0. What compiles becomes OUT/<number>, complete or not
// there at all; OUT/<number>.part says that the file was tried. Arguments: OUT FIRST MAX_BYTES MOUNT.
//
// A result is the length of what follows (4 bytes, little endian), JSON that code_cache.cjs knows, and V8's cache.
'use strict';

const fs = require('fs');
const inspector = require('inspector');
const vm = require('vm');

const PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];
const RESULT_MAX_BYTES = 16 * 1024 * 1024;
const MAYBE_IMPORTS = /\bimport\s*(?:\(|\/)/;
const NAMES = ['imp0rt', 'imp1rt', 'imp2rt', 'imp3rt', 'imp4rt'];
const ALIGNMENT = 8;
const HELD_MAX_CHARACTERS = 4 * 1024 * 1024;

// Compiles functions without calling them, by asking a debugger where it could stop in them. `--no-lazy` compiles as
// much, but its functions lose the names that stack traces have for `exports.handler = () => ...`.
class Debugger {
  constructor() {
    this.session = new inspector.Session();
    this.session.connect();
    this.session.on('Debugger.scriptParsed', ({ params }) => (this.last = params.scriptId));
    this.post('enable');
    this.held = 0;
  }

  post(method, parameters) {
    this.session.post(`Debugger.${method}`, parameters, (error) => {
      if (error) throw error;
    });
  }

  // The cache of a script that was made by `make`, which ends with making it known to the debugger.
  compileAll(characters, make) {
    this.last = undefined;
    const script = make();
    if (this.last === undefined) throw new Error('the debugger was not told of the script');
    this.post('getPossibleBreakpoints', { start: { scriptId: this.last, lineNumber: 0, columnNumber: 0 } });
    const cache = script.createCachedData();
    this.held += characters;
    if (this.held > HELD_MAX_CHARACTERS) {
      // It keeps every script that it was told of.
      this.post('disable');
      this.post('enable');
      this.held = 0;
    }
    return cache;
  }
}

function cacheOf(text, filename, parameters, debugging) {
  // As a function's body it is whole; below it could otherwise end that function and be run.
  vm.compileFunction(text, parameters, { filename });
  const head = `(function (${parameters.join(', ')}) { `;
  return debugging.compileAll(text.length, () => {
    const script = new vm.Script(`${head}${text}\n})`, { filename, columnOffset: -head.length });
    script.runInThisContext(); // the value of a function expression: nothing is called
    return script;
  });
}

// Code from a cache has lost who it is for import(): each such keyword becomes a name as long, which is given the
// module's own import(). Null where that would not be all: for text that eval() could make an import() of.
function importsOf(text) {
  if (!MAYBE_IMPORTS.test(text)) return { positions: [] };
  const { parse } = require('internal/deps/acorn/acorn/dist/acorn');
  const { full } = require('internal/deps/acorn/acorn-walk/dist/walk');
  const positions = [];
  let plain = true;
  full(parse(text, { ecmaVersion: 'latest', allowReturnOutsideFunction: true, allowHashBang: true }), (node) => {
    if (node.type === 'ImportExpression') positions.push(node.start);
    else if (node.type === 'Literal' && typeof node.value === 'string') plain &&= !MAYBE_IMPORTS.test(node.value);
    else if (node.type === 'TemplateElement') plain &&= !MAYBE_IMPORTS.test(node.value.raw);
  });
  const name = NAMES.find((each) => !text.includes(each));
  if (!plain || name === undefined) return null;
  positions.sort((one, other) => one - other);
  return positions.length ? { name, positions } : { positions };
}

function renamed(text, { name, positions }) {
  const parts = [];
  let from = 0;
  for (const position of positions) {
    parts.push(text.slice(from, position), name);
    from = position + name.length;
  }
  return parts.join('') + text.slice(from);
}

// The result for a file; undefined where there is none.
function compiled(text, filename, debugging) {
  const imports = importsOf(text);
  if (imports === null) return undefined;
  const parameters = imports.name ? [...PARAMETERS, imports.name] : PARAMETERS;
  const cache = cacheOf(renamed(text, imports), filename, parameters, debugging);
  const about = JSON.stringify(imports);
  // V8 copies a cache that does not begin at a multiple of eight.
  const head = Buffer.from(about.padEnd(about.length + ((ALIGNMENT - ((4 + about.length) % ALIGNMENT)) % ALIGNMENT)));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(head.length);
  return Buffer.concat([size, head, cache]);
}

function read(source) {
  const file = fs.openSync(source, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
  try {
    return fs.readFileSync(file, 'utf8');
  } finally {
    fs.closeSync(file);
  }
}

// Returns the bytes written; 0 when the file does not compile as CommonJS, as ES modules do not.
function attempt(source, target, mount, debugging) {
  const part = fs.openSync(`${target}.part`, 'wx', 0o600);
  try {
    const result = compiled(read(source), `${mount}/${source}`, debugging);
    if (result === undefined || result.length > RESULT_MAX_BYTES) return 0;
    if (fs.writeSync(part, result) !== result.length) return 0;
    fs.renameSync(`${target}.part`, target);
    return result.length;
  } catch {
    return 0;
  } finally {
    fs.closeSync(part);
  }
}

function main([out, first, maxBytes, mount]) {
  const debugging = new Debugger();
  const sources = fs.readFileSync(0).toString('utf8').split('\0').slice(0, -1);
  let left = Number(maxBytes);
  for (let number = Number(first); number < sources.length && left > 0; number++) {
    left -= attempt(sources[number], `${out}/${number}`, mount, debugging);
  }
}

main(process.argv.slice(1));
