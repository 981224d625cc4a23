// Finds the handler: CommonJS or ES module, nested folders, nested properties; AWS's order of attempts.
'use strict';

const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');
const {
  CallbackHandlerDeprecated,
  HandlerNotFound,
  ImportModuleError,
  MalformedHandlerName,
  MalformedStreamingHandler,
  UserCodeSyntaxError,
} = require('./errors.cjs');

// "Require stack" in error messages then names the file that AWS's messages name.
const requireUser = createRequire(`${process.env.LAMBDA_RUNTIME_DIR || '/var/runtime'}/index.mjs`);

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const RESPONSE = 'response';
const isUnset = (value) => value === undefined || value === null || value === false;

function splitHandler(full) {
  if (full.includes('..')) {
    throw new MalformedHandlerName(
      `'${full}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`,
    );
  }
  const last = path.basename(full);
  const folder = full.substring(0, full.indexOf(last));
  const match = last.match(/^([^.]*)\.(.*)$/);
  if (!match) throw new MalformedHandlerName('Bad handler');
  return [folder, match[1], match[2]];
}

const requireFile = (file) => (fs.existsSync(file) ? requireUser(file) : undefined);
const importFile = async (file) => (fs.existsSync(file) ? await import(file) : undefined);

// Whether the nearest package.json says that .js files are ES modules.
function isModuleFolder(folder) {
  if (folder.endsWith('/node_modules')) return false;
  const file = path.join(folder, 'package.json');
  if (fs.existsSync(file)) {
    try {
      const settings = JSON.parse(fs.readFileSync(file));
      if (settings) return settings.type === 'module';
    } catch (error) {
      console.warn(`${file} cannot be read, it will be ignored for ES module detection purposes.`, error);
      return false;
    }
  }
  return folder === '/' ? false : isModuleFolder(path.resolve(folder, '..'));
}

async function loadModule(root, folder, name) {
  const file = path.resolve(root, folder, name);
  const bare = requireFile(file);
  if (bare) return bare;
  const isModule = fs.existsSync(file + '.js') && isModuleFolder(path.dirname(file));
  if (!isModule) {
    const loaded = requireFile(file + '.js');
    if (loaded) return loaded;
  }
  const loaded =
    (isModule && (await importFile(file + '.js'))) || (await importFile(file + '.mjs')) || requireFile(file + '.cjs');
  return loaded || requireUser(requireUser.resolve(name, { paths: [root, folder] }));
}

function defineGlobal() {
  const off = process.env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA;
  if (off === '1' || off === 'true') return;
  globalThis.awslambda = {
    streamifyResponse: (handler, options) => {
      handler[STREAMING] = RESPONSE;
      if (typeof options?.highWaterMark === 'number') handler[HIGH_WATER_MARK] = parseInt(options.highWaterMark);
      return handler;
    },
    get HttpResponseStream() {
      return require('./streaming.cjs').HttpResponseStream;
    },
  };
}

// Load `full` (folder/file.property.property) below `root`.
async function load(root, full) {
  const [folder, name, property] = splitHandler(full);
  defineGlobal();
  require('./code_cache.cjs').installIfAny(root);
  let app;
  try {
    app = await loadModule(root, folder, name);
  } catch (error) {
    if (error instanceof SyntaxError) throw new UserCodeSyntaxError(error);
    if (error?.code === 'MODULE_NOT_FOUND') throw new ImportModuleError(error);
    throw error;
  }
  const handler = property.split('.').reduce((nested, key) => nested && nested[key], app);
  if (!handler) throw new HandlerNotFound(`${full} is undefined or not exported`);
  if (typeof handler !== 'function') throw new HandlerNotFound(`${full} is not a function`);
  return handler;
}

// How the handler wants to be called. Throws where this version of the runtime does not call it at all.
function metadata(handler) {
  const streaming = !isUnset(handler[STREAMING]);
  if (streaming && handler[STREAMING] !== RESPONSE) {
    throw new MalformedStreamingHandler('Only response streaming is supported.');
  }
  const promisesOnly = Number(process.versions.node.split('.')[0]) >= 24;
  if (promisesOnly && !streaming && handler.length >= 3) {
    throw new CallbackHandlerDeprecated(
      'ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24. You need ' +
        'to modify this function to use a supported handler signature to use Node.js 24 or later. For more ' +
        'information see https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.',
    );
  }
  const mark = isUnset(handler[HIGH_WATER_MARK]) ? NaN : parseInt(handler[HIGH_WATER_MARK]);
  return { streaming, promisesOnly, highWaterMark: isNaN(mark) ? undefined : mark };
}

module.exports = { load, metadata };
