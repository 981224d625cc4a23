// The context object: what headers and environment say, and the callbacks of handlers that do not return promises.
'use strict';

const beforeExit = require('./before_exit.cjs');
const { logError } = require('./console.cjs');

function parseJson(text, name) {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`Cannot parse ${name} as json: ${error.toString()}`);
  }
}

// Complete a context with everything about this invocation. Throws when a header is malformed.
function fillContext(context, headers) {
  const trace = headers['lambda-runtime-trace-id'];
  if (trace) process.env._X_AMZN_TRACE_ID = trace;
  else delete process.env._X_AMZN_TRACE_ID;
  const deadline = headers['lambda-runtime-deadline-ms'];
  const env = process.env;
  return Object.assign(context, {
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: parseJson(headers['lambda-runtime-client-context'], 'ClientContext'),
    identity: parseJson(headers['lambda-runtime-cognito-identity'], 'CognitoIdentity'),
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    getRemainingTimeInMillis: () => deadline - Date.now(),
  });
}

// callbackWaitsForEmptyEventLoop as an accessor, so that what the handler sets later counts.
function waitsProperty(settings) {
  return {
    get callbackWaitsForEmptyEventLoop() {
      return settings.waits;
    },
    set callbackWaitsForEmptyEventLoop(value) {
      settings.waits = value;
    },
  };
}

// Run `action` now, or once the event loop is empty where the function wants that.
function whenAllowed(settings, action) {
  if (settings.waits) beforeExit.set(() => setImmediate(action));
  else action();
}

// The outcome of one invocation, reported at most once.
class Outcome {
  constructor(client, id, scheduleNext) {
    this.client = client;
    this.id = id;
    this.scheduleNext = scheduleNext;
    this.completed = false;
  }

  fail(error) {
    logError('Invoke Error', error);
    this.client.fail(error, this.id, this.scheduleNext);
  }

  complete(result) {
    if (this.completed) {
      console.error(
        'Invocation has already been reported as done. Cannot call complete more than once per invocation.',
      );
      return;
    }
    this.completed = true;
    this.client.respond(result, this.id, this.scheduleNext);
  }
}

function onlyFirstCall(wrapped) {
  const state = { finished: false };
  return wrapped.map((fn) => (...args) => {
    if (state.finished) return;
    fn(...args);
    state.finished = true;
  });
}

// [callback, context, outcome] of one invocation. The first of callback, done, succeed and fail counts.
function buildCallbacks(client, id, scheduleNext) {
  const outcome = new Outcome(client, id, scheduleNext);
  const settings = { waits: true };
  const isError = (error) => error !== undefined && error !== null;
  const done = (error, result) => {
    beforeExit.reset();
    if (isError(error)) outcome.fail(error);
    else outcome.complete(result);
  };
  const rawCallback = (error, result) => {
    beforeExit.reset();
    if (isError(error)) outcome.fail(error);
    else whenAllowed(settings, () => outcome.complete(result));
  };
  const rawFail = (error) => (isError(error) ? done(error, null) : done('handled'));
  const [callback, succeed, fail, doneOnce] = onlyFirstCall([
    rawCallback,
    (result) => done(null, result),
    rawFail,
    done,
  ]);
  const context = waitsProperty(settings);
  Object.assign(context, { succeed, fail, done: doneOnce });
  return [callback, context, outcome];
}

module.exports = { buildCallbacks, fillContext, waitsProperty, whenAllowed };
