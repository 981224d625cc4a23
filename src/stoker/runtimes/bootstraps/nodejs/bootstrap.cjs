// Entry point of the Node.js runtimes: started as `node /var/runtime/bootstrap.cjs`, serves invocations for ever.
// Behaves as AWS's runtime interface client for Node.js; starts without its http module and native addon.
'use strict';

const { patchConsole, logError } = require('./stoker/console.cjs');
const { Client } = require('./stoker/client.cjs');
const { UnhandledPromiseRejection } = require('./stoker/errors.cjs');
const beforeExit = require('./stoker/before_exit.cjs');
const { load, metadata } = require('./stoker/loader.cjs');
const { Runtime } = require('./stoker/runtime.cjs');

// What an uncaught error ends: first the Init phase, later the running invocation (runtime.cjs replaces them).
function initErrorHandlers(client) {
  return {
    uncaughtException: (error) => client.failInit(error, () => process.exit(129)),
    unhandledRejection: (error) => client.failInit(error, () => process.exit(128)),
  };
}

// Started ahead of any function: wait to be told which, then be as if started for it.
async function waitForAssignment(client) {
  const { environment, working_directory: folder } = JSON.parse(await client.assignment());
  for (const name of Object.keys(process.env)) {
    // The API's address comes later in a fresh process.
    if (!(name in environment) || name === 'AWS_LAMBDA_RUNTIME_API') delete process.env[name];
  }
  for (const [name, value] of Object.entries(environment)) {
    // Only what differs: Node looks for the time zone again whenever TZ is set.
    if (process.env[name] !== value) process.env[name] = value;
  }
  process.chdir(folder);
}

async function main() {
  const client = new Client(process.env.AWS_LAMBDA_RUNTIME_API);
  // Connected before the function's code runs, so that its first descriptor has the same number either way.
  await (process.env.STOKER_POOLED ? waitForAssignment(client) : client.connected);
  await new Promise(setImmediate); // and so that stack traces begin at the same place
  patchConsole();
  const onError = initErrorHandlers(client);
  const uncaught = (error) => {
    logError('Uncaught Exception', error);
    onError.uncaughtException(error);
  };
  process.on('uncaughtException', uncaught);
  process.on('unhandledRejection', (reason, promise) => {
    const error = new UnhandledPromiseRejection(reason, promise);
    logError('Unhandled Promise Rejection', error);
    onError.unhandledRejection(error);
  });
  beforeExit.reset();
  process.on('beforeExit', beforeExit.invoke);
  try {
    const handler = await load(process.env.LAMBDA_TASK_ROOT || process.cwd(), process.env._HANDLER);
    new Runtime(client, handler, metadata(handler), onError).scheduleIteration();
  } catch (error) {
    uncaught(error);
  }
}

main();
