// The whole life of a function through @aws-sdk/client-lambda; prints one JSON line of what it saw.
import { readFileSync } from "node:fs";
import {
  CreateFunctionCommand,
  DeleteFunctionCommand,
  GetFunctionCommand,
  InvokeCommand,
  LambdaClient,
  UpdateFunctionCodeCommand,
  waitUntilFunctionActiveV2,
  waitUntilFunctionUpdatedV2,
} from "@aws-sdk/client-lambda";

const [first, second, runtime, role] = process.argv.slice(2);
const client = new LambdaClient({ maxAttempts: 1 });
const waiter = { client, maxWaitTime: 30, minDelay: 1 };
const name = { FunctionName: "by-javascript" };
const decode = (answer) => JSON.parse(new TextDecoder().decode(answer.Payload));

const created = await client.send(
  new CreateFunctionCommand({
    ...name,
    Runtime: runtime,
    Role: role,
    Handler: "lambda_function.lambda_handler",
    Code: { ZipFile: readFileSync(first) },
  }),
);
await waitUntilFunctionActiveV2(waiter, name);
const answer = await client.send(new InvokeCommand({ ...name, Payload: JSON.stringify({ n: 1 }), LogType: "Tail" }));
await client.send(new UpdateFunctionCodeCommand({ ...name, ZipFile: readFileSync(second) }));
await waitUntilFunctionUpdatedV2(waiter, name);
const updated = await client.send(new InvokeCommand(name));
await client.send(new DeleteFunctionCommand(name));
const gone = await client.send(new GetFunctionCommand(name)).catch((error) => error.name);
console.log(
  JSON.stringify({
    state: created.State,
    result: decode(answer),
    log: Buffer.from(answer.LogResult, "base64").toString().includes("REPORT"),
    updated: decode(updated),
    gone,
  }),
);
