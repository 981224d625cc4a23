// The loop: take an invocation, call the handler, report the outcome, go round again.
'use strict';

const beforeExit = require('./before_exit.cjs');
const { setRequestId, setTenantId } = require('./console.cjs');
const { buildCallbacks, fillContext } = require('./context.cjs');

const isPromise = (it) => it && typeof it.then === 'function';

class Runtime {
  constructor(client, handler, metadata, onError) {
    this.client = client;
    this.handler = handler;
    this.metadata = metadata;
    this.onError = onError;
    this.scheduleIteration = this.scheduleIteration.bind(this);
    this.handleOnce = metadata.streaming
      ? () => require('./streaming.cjs').handleOnce(this)
      : metadata.promisesOnly
        ? this.handlePromise
        : this.handleOnceNonStreaming;
  }

  scheduleIteration() {
    setImmediate(() => {
      this.handleOnce().catch((error) => {
        console.log(`Unexpected Top Level Error: ${error.toString()}`);
        this.onError.uncaughtException(error);
      });
    });
  }

  // Take the next invocation; from here on uncaught errors are its errors.
  async take() {
    const { headers, body } = await this.client.next();
    const id = headers['lambda-runtime-aws-request-id'];
    setRequestId(id);
    setTenantId(headers['lambda-runtime-aws-tenant-id']);
    const ending = (status) => (error) => this.client.failAndWait(error, id, () => process.exit(status));
    this.onError.uncaughtException = ending(129);
    this.onError.unhandledRejection = ending(128);
    return { id, headers, body };
  }

  // Handlers up to Node.js 22: a promise, a callback, or neither.
  async handleOnceNonStreaming() {
    const { id, headers, body } = await this.take();
    const [callback, context, outcome] = buildCallbacks(this.client, id, this.scheduleIteration);
    try {
      beforeExit.set(() => {
        outcome.completed = true;
        this.client.respond(null, id, this.scheduleIteration);
      });
      const result = this.handler(JSON.parse(body), fillContext(context, headers), callback);
      if (isPromise(result)) result.then(context.succeed, context.fail).catch(context.fail);
    } catch (error) {
      callback(error);
    }
  }

  // Handlers from Node.js 24 on: whatever is returned or awaited is the result.
  async handlePromise() {
    const { id, headers, body } = await this.take();
    const [, context, outcome] = buildCallbacks(this.client, id, this.scheduleIteration);
    beforeExit.set(() => outcome.complete(null));
    const { succeed, fail } = context;
    try {
      succeed(await this.handler(JSON.parse(body), fillContext({}, headers)));
    } catch (error) {
      fail(error);
    }
  }
}

module.exports = { Runtime };
