// Streamed responses: a writable stream over a chunked POST, errors as trailers; loaded by streaming handlers only.
'use strict';

const { Writable } = require('stream');
const beforeExit = require('./before_exit.cjs');
const { logError } = require('./console.cjs');
const { fillContext, waitsProperty, whenAllowed } = require('./context.cjs');
const { InvalidStreamingOperation, toResponse } = require('./errors.cjs');

const PRELUDE_TYPE = 'application/vnd.awslambda.http-integration-response';
const ERROR_TYPE = 'Lambda-Runtime-Function-Error-Type';
const ERROR_BODY = 'Lambda-Runtime-Function-Error-Body';

class ResponseStream extends Writable {
  constructor(client, id, highWaterMark) {
    super({ highWaterMark, decodeStrings: true });
    this.client = client;
    this.path = `/2018-06-01/runtime/invocation/${encodeURIComponent(id)}/response`;
    this.contentType = 'application/octet-stream';
    this.started = false;
    this.trailers = '';
    this.accepted = new Promise((resolve) => (this.onAccepted = resolve));
    this.on('error', () => {});
  }

  setContentType(contentType) {
    if (this.started) throw new InvalidStreamingOperation('Cannot set content-type, too late.');
    this.contentType = contentType;
  }

  write(chunk, encoding, callback) {
    if (typeof chunk !== 'string' && !Buffer.isBuffer(chunk) && chunk?.constructor !== Uint8Array) {
      chunk = JSON.stringify(chunk);
    }
    const prelude = this._onBeforeFirstWrite;
    if (!this.started && typeof prelude === 'function') {
      this._onBeforeFirstWrite = undefined;
      prelude((part) => super.write(part));
    }
    this.started = true;
    return super.write(chunk, encoding, callback);
  }

  _write(chunk, _encoding, callback) {
    this.open();
    if (chunk.length === 0) return callback();
    const { socket } = this.client;
    socket.cork();
    socket.write(`${chunk.length.toString(16)}\r\n`);
    socket.write(chunk);
    socket.write('\r\n', callback);
    return socket.uncork();
  }

  _final(callback) {
    this.open();
    this.client.socket.write(`0\r\n${this.trailers}\r\n`, callback);
  }

  // Send the head once; from then on the answer is owed.
  open() {
    if (this.opened) return;
    this.opened = true;
    this.started = true;
    const answer = this.client.send(
      `POST ${this.path} HTTP/1.1\r\nHost: ${this.client.host}\r\nContent-Type: ${this.contentType}\r\n` +
        `Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n` +
        `Trailer: ${ERROR_TYPE}, ${ERROR_BODY}\r\n\r\n`,
    );
    answer.then((it) => this.client.check(it, 'success')).then(this.onAccepted);
  }

  // End the stream with an error; `done` runs when everything is written.
  fail(error, done) {
    const shown = toResponse(error);
    const body = Buffer.from(JSON.stringify(shown)).toString('base64');
    this.trailers = `${ERROR_TYPE}: ${String(shown.errorType).replace(/[\x00-\x1f]/g, ' ')}\r\n${ERROR_BODY}: ${body}\r\n`;
    if (this.writableEnded) done();
    else this.end(done);
  }
}

class HttpResponseStream {
  // Make a stream an HTTP response: status, headers and cookies go ahead of the body, then eight zero bytes.
  static from(underlyingStream, prelude) {
    underlyingStream.setContentType(PRELUDE_TYPE);
    const text = JSON.stringify(prelude);
    underlyingStream._onBeforeFirstWrite = (write) => {
      write(text);
      write(new Uint8Array(8));
    };
    return underlyingStream;
  }
}

// One invocation of a streaming handler.
async function handleOnce(runtime) {
  const { id, headers, body } = await runtime.take();
  const settings = { waits: true };
  const stream = new ResponseStream(runtime.client, id, runtime.metadata.highWaterMark);
  const ending = (status) => (error) => {
    stream.fail(error, () => stream.accepted.then(() => process.exit(status)));
  };
  runtime.onError.uncaughtException = ending(129);
  runtime.onError.unhandledRejection = ending(128);
  const next = () => {
    beforeExit.reset();
    whenAllowed(settings, runtime.scheduleIteration);
  };
  const fail = (error) => {
    logError('Invoke Error', error);
    stream.fail(error, runtime.scheduleIteration);
  };
  try {
    beforeExit.set(() => runtime.scheduleIteration());
    const context = fillContext(waitsProperty(settings), headers);
    const result = runtime.handler(JSON.parse(body), stream, context);
    if (!result || typeof result.then !== 'function') {
      return fail('Streaming does not support non-async handlers.');
    }
    if ((await result) !== undefined) console.warn('Streaming handlers ignore return values.');
    await stream.accepted;
    if (!stream.writableFinished) return fail('Response stream is not finished.');
    return next();
  } catch (error) {
    return fail(error);
  }
}

module.exports = { HttpResponseStream, handleOnce };
