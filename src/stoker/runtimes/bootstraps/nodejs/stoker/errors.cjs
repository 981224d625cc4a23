// Error classes of the runtime and the shapes in which errors reach callers, logs and X-Ray.
'use strict';

const { isNativeError } = require('util').types;

class UnhandledPromiseRejection extends Error {
  constructor(reason, promise) {
    super(reason);
    this.reason = reason;
    this.promise = promise;
  }
}

const classes = {
  ImportModuleError: class ImportModuleError extends Error {},
  HandlerNotFound: class HandlerNotFound extends Error {},
  MalformedHandlerName: class MalformedHandlerName extends Error {},
  UserCodeSyntaxError: class UserCodeSyntaxError extends Error {},
  MalformedStreamingHandler: class MalformedStreamingHandler extends Error {},
  InvalidStreamingOperation: class InvalidStreamingOperation extends Error {},
  CallbackHandlerDeprecated: class CallbackHandlerDeprecated extends Error {},
  UnhandledPromiseRejection,
};
for (const [name, kind] of Object.entries(classes)) kind.prototype.name = `Runtime.${name}`;

const isErrorLike = (it) =>
  it && typeof it.name === 'string' && typeof it.message === 'string' && typeof it.stack === 'string' &&
  it.name && it.message && it.stack;

const clean = (text) => text?.replace(/\x7F/g, '%7F');

// What the caller sees: errorType, errorMessage and trace.
function toResponse(error) {
  try {
    if (isNativeError(error) || isErrorLike(error)) {
      return {
        errorType: clean(error.name),
        errorMessage: clean(error.message),
        trace: clean(error.stack).split('\n'),
      };
    }
    return { errorType: typeof error, errorMessage: error.toString(), trace: [] };
  } catch {
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its ' +
        'message, name, and stack',
    };
  }
}

function withEnumerableProperties(value) {
  if (!(value instanceof Error)) return value;
  const shown = { errorType: value.name, errorMessage: value.message, code: value.code, ...value };
  if (typeof value.stack === 'string') shown.stack = value.stack.split('\n');
  return shown;
}

// What a text log shows of an error: one JSON object behind a tab.
function toFormatted(error) {
  try {
    return '\t' + JSON.stringify(error, (_key, value) => withEnumerableProperties(value));
  } catch {
    return '\t' + JSON.stringify(toResponse(error));
  }
}

const intoError = (error) => (error instanceof Error ? error : new Error(error));

function stackEntry(line) {
  let text = line.trim().replace(/\(|\)/g, '');
  text = text.substring(text.indexOf(' ') + 1);
  const space = text.lastIndexOf(' ');
  const label = space >= 0 ? text.slice(0, space) : '';
  const [path, number] = (label ? text.slice(space + 1) : text).split(':');
  return { path, line: parseInt(number), label: label || 'anonymous' };
}

// The cause for X-Ray as JSON text, empty when the error does not allow it.
function toXrayCause(error) {
  try {
    const stack = error.stack ? clean(error.stack).split('\n').slice(1).map(stackEntry) : [];
    return JSON.stringify({
      working_directory: process.cwd(),
      exceptions: [{ type: clean(error.name), message: clean(error.message), stack }],
      paths: [...new Set(stack.map((entry) => entry.path))],
    });
  } catch {
    return '';
  }
}

module.exports = { ...classes, toResponse, toFormatted, intoError, toXrayCause };
