// console.* as Lambda formats it: text or JSON, to standard output or to the framed telemetry pipe.
'use strict';

const fs = require('fs');
const util = require('util');
const { intoError, toFormatted } = require('./errors.cjs');

const REQUEST_ID = Symbol.for('aws.lambda.runtime.requestId');
const TENANT_ID = Symbol.for('aws.lambda.runtime.tenantId');

// Level: priority and the bits it sets in a frame's type.
const LEVELS = {
  TRACE: { name: 'TRACE', priority: 1, bits: 0x04 },
  DEBUG: { name: 'DEBUG', priority: 2, bits: 0x08 },
  INFO: { name: 'INFO', priority: 3, bits: 0x0c },
  WARN: { name: 'WARN', priority: 4, bits: 0x10 },
  ERROR: { name: 'ERROR', priority: 5, bits: 0x14 },
  FATAL: { name: 'FATAL', priority: 6, bits: 0x18 },
};
const METHODS = { trace: 'TRACE', debug: 'DEBUG', info: 'INFO', warn: 'WARN', error: 'ERROR', fatal: 'FATAL' };
const TEXT_FRAME = 0xa55a0003;
const JSON_FRAME = 0xa55a0002;

const isJson = () => process.env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === 'JSON';

const errorFields = (error) => ({
  errorType: error?.constructor?.name ?? 'UnknownError',
  errorMessage: error.message,
  stackTrace: typeof error.stack === 'string' ? error.stack.split('\n') : error.stack,
});

const replaceErrors = (_key, value) => (value instanceof Error ? { ...errorFields(value), ...value } : value);

function formatText(time, level, message, params) {
  return `${time}\t${global[REQUEST_ID]}\t${level.name}\t${util.format(message, ...params)}`;
}

function formatJson(time, level, message, params) {
  const line = { timestamp: time, level: level.name, requestId: global[REQUEST_ID] };
  if (global[TENANT_ID] != null) line.tenantId = global[TENANT_ID];
  if (params.length === 0) {
    line.message = message;
    try {
      return JSON.stringify(line, replaceErrors);
    } catch {
      line.message = util.format(message);
      return JSON.stringify(line);
    }
  }
  line.message = util.format(message, ...params);
  const error = [message, ...params].find((param) => param instanceof Error);
  if (error) Object.assign(line, errorFields(error), { stackTrace: error.stack?.split?.('\n') ?? [] });
  return JSON.stringify(line);
}

function toStandardOutput(format) {
  return (level, message, ...params) => {
    const line = format(new Date().toISOString(), level, message, params);
    process.stdout.write(line.replace(/\n/g, '\r') + '\n');
  };
}

function writeAll(fd, buffer) {
  for (let done = 0; done < buffer.length; ) {
    try {
      done += fs.writeSync(fd, buffer, done);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

function toFrames(fd, format, type, ending) {
  return (level, message, ...params) => {
    const now = new Date();
    const text = Buffer.from(format(now.toISOString(), level, message, params) + ending);
    const head = Buffer.alloc(16);
    head.writeUInt32BE((type | level.bits) >>> 0, 0);
    head.writeUInt32BE(text.length, 4);
    head.writeBigInt64BE(BigInt(now.valueOf()) * 1000n, 8);
    writeAll(fd, Buffer.concat([head, text]));
  };
}

function patchConsole() {
  const fd = process.env._LAMBDA_TELEMETRY_LOG_FD;
  const format = isJson() ? formatJson : formatText;
  let log = toStandardOutput(format);
  if (fd != null) {
    delete process.env._LAMBDA_TELEMETRY_LOG_FD;
    log = isJson() ? toFrames(parseInt(fd), format, JSON_FRAME, '') : toFrames(parseInt(fd), format, TEXT_FRAME, '\n');
  }
  const lowest = LEVELS[process.env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase()] ?? LEVELS.TRACE;
  for (const [method, name] of Object.entries(METHODS)) {
    const level = LEVELS[name];
    const enabled = name === 'FATAL' || level.priority >= lowest.priority;
    console[method] = enabled ? (message, ...params) => log(level, message, ...params) : () => {};
  }
  console.log = console.info;
}

// Log an error of the runtime's own: behind a message in text, as the message in JSON.
function logError(message, error) {
  if (isJson()) console.error(intoError(error));
  else console.error(message, toFormatted(intoError(error)));
}

module.exports = {
  patchConsole,
  logError,
  setRequestId: (id) => (global[REQUEST_ID] = id),
  setTenantId: (id) => (global[TENANT_ID] = id),
};
