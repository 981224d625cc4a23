// The one thing to do when the event loop has run empty: answer an invocation that waited for that.
'use strict';

const LISTENER = Symbol.for('aws.lambda.beforeExit');
const nothing = () => {};

module.exports = {
  invoke: () => global[LISTENER](),
  reset: () => (global[LISTENER] = nothing),
  set: (listener) => (global[LISTENER] = listener),
};
