// A keep-alive HTTP/1.1 client for the Lambda Runtime API on a plain socket.
// A response and the request for the next invocation leave in one packet; the socket keeps the process alive only
// while an answer is owed, so that `beforeExit` tells when the function's own event loop is empty.
'use strict';

const net = require('net');
const { toResponse, toXrayCause } = require('./errors.cjs');

const MAX_RESPONSE_BYTES = 6291556;
const MAX_XRAY_BYTES = 1024 * 1024;
const NEXT = '/2018-06-01/runtime/invocation/next';
const END_OF_HEAD = Buffer.from('\r\n\r\n');

const headerValue = (text) => String(text).replace(/[\x00-\x1f\x7f]/g, ' ');

function serialize(body) {
  try {
    return JSON.stringify(body === undefined ? null : body);
  } catch {
    throw new Error('Unable to stringify response body');
  }
}

class Client {
  constructor(address) {
    this.host = address;
    const colon = address.lastIndexOf(':');
    this.socket = net.connect({ host: address.slice(0, colon), port: Number(address.slice(colon + 1)), noDelay: true });
    this.socket.on('data', (data) => this.received(data));
    this.socket.on('error', (error) => this.lost(error));
    this.socket.on('close', () => this.lost(new Error('The Runtime API closed the connection')));
    this.connected = new Promise((resolve) => this.socket.once('connect', resolve)).then(() => {
      if (this.owed.length === 0) this.socket.unref();
    });
    this.chunks = [];
    this.size = 0;
    this.needed = 0;
    this.owed = [];
    this.nextAnswer = null;
    this.nextRequest = `GET ${NEXT} HTTP/1.1\r\nHost: ${address}\r\n\r\n`;
  }

  // Wait, in a process started ahead, to be told what it is for: JSON text.
  async assignment() {
    const answer = await this.send(`GET /2018-06-01/stoker/assignment HTTP/1.1\r\nHost: ${this.host}\r\n\r\n`);
    if (answer.status !== 200) throw new Error(`Failed to get an assignment. Response code: ${answer.status}.`);
    return answer.body;
  }

  // Wait for an invocation: { headers (lower-case names), body (text) }.
  async next() {
    const answer = await (this.nextAnswer ?? this.send(this.nextRequest));
    this.nextAnswer = null;
    if (answer.status !== 200) throw new Error(`Failed to get next. Response code: ${answer.status}. ${answer.body}`);
    return answer;
  }

  // Post the function's result; `done` runs at once: the request for the next invocation is on its way by then.
  respond(result, id, done) {
    const body = serialize(result) ?? 'null';
    const path = `/2018-06-01/runtime/invocation/${encodeURIComponent(id)}/response`;
    const accepted = this.post(path, body, '', 'success', true);
    // What is too large will be refused, and that ends the process: ask for nothing more before.
    if (accepted.alone) accepted.answer.then(done);
    else done();
  }

  fail(error, id, done) {
    this.postError(error, id, true);
    done();
  }

  // Post an error and run `done` only when it has arrived, for processes about to exit.
  failAndWait(error, id, done) {
    this.postError(error, id, false).answer.then(done, done);
  }

  failInit(error, done) {
    const response = toResponse(error);
    const head = `Lambda-Runtime-Function-Error-Type: ${headerValue(response.errorType)}\r\n`;
    this.post('/2018-06-01/runtime/init/error', serialize(response), head, 'init', false).answer.then(done, done);
  }

  postError(error, id, withNext) {
    const response = toResponse(error);
    const xray = toXrayCause(error);
    let head = `Lambda-Runtime-Function-Error-Type: ${headerValue(response.errorType)}\r\n`;
    if (xray && Buffer.byteLength(xray) < MAX_XRAY_BYTES) {
      head += `Lambda-Runtime-Function-XRay-Error-Cause: ${headerValue(xray)}\r\n`;
    }
    const path = `/2018-06-01/runtime/invocation/${encodeURIComponent(id)}/error`;
    return this.post(path, serialize(response), head, 'error', withNext);
  }

  // Post a text, in one write with the request for the next invocation if that may be asked for already.
  post(path, body, head, what, withNext) {
    const length = Buffer.byteLength(body);
    const alone = !withNext || length > MAX_RESPONSE_BYTES;
    const request =
      `POST ${path} HTTP/1.1\r\nHost: ${this.host}\r\nContent-Type: application/json\r\n${head}` +
      `Content-Length: ${length}\r\n\r\n${body}`;
    const answer = this.send(alone ? request : request + this.nextRequest).then((it) => this.check(it, what));
    if (!alone) this.nextAnswer = this.expect();
    return { alone, answer };
  }

  check(answer, what) {
    if (answer.status === 202) return;
    // As AWS's client: a refused result ends the process, and the platform discards the sandbox.
    const text = `LAMBDA_RUNTIME Failed to post handler ${what} response. Http response code: ${answer.status}.`;
    process.stderr.write(`${text} ${answer.body}\n`);
    process.exit(1);
  }

  // Write a request and promise its answer.
  send(request) {
    this.socket.write(request);
    return this.expect();
  }

  expect() {
    this.socket.ref();
    return new Promise((resolve, reject) => this.owed.push({ resolve, reject }));
  }

  received(data) {
    this.chunks.push(data);
    this.size += data.length;
    while (this.size > 0 && this.size >= this.needed) {
      if (!this.parse()) return;
    }
  }

  // Take one answer off what was received; false when it is not complete yet.
  parse() {
    const buffer = this.chunks.length === 1 ? this.chunks[0] : Buffer.concat(this.chunks, this.size);
    this.chunks = [buffer];
    const end = buffer.indexOf(END_OF_HEAD);
    if (end < 0) return false;
    const [first, ...lines] = buffer.toString('utf8', 0, end).split('\r\n');
    const headers = {};
    for (const line of lines) {
      const colon = line.indexOf(':');
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    const start = end + END_OF_HEAD.length;
    const total = start + Number(headers['content-length']);
    this.needed = total;
    if (buffer.length < total) return false;
    this.needed = 0;
    this.chunks = [buffer.subarray(total)];
    this.size -= total;
    const waiting = this.owed.shift();
    if (this.owed.length === 0) this.socket.unref();
    waiting.resolve({ status: Number(first.split(' ', 2)[1]), headers, body: buffer.toString('utf8', start, total) });
    return true;
  }

  lost(error) {
    // Nothing can be reported any more.
    process.stderr.write(`LAMBDA_RUNTIME ${error.message}\n`);
    process.exit(1);
  }
}

module.exports = { Client };
