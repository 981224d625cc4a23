"""Programs for images: the Runtime API in a few lines of Python, without anything that an image would have to bring."""

BOOTSTRAP = '''\
#!/usr/bin/python3 -I
"""Echoes each event with what it finds around it; ``{"read": PATH}`` and ``{"write": PATH}`` try that."""
import http.client, json, os, sys
EXTRA = os.environ.get("EXTRA", "")
def tried(path, mode):
    try:
        with open(path, mode) as file:
            return file.read() if mode == "r" else file.write("x")
    except OSError as problem:
        return problem.strerror
def answer(event):
    found = {
        "event": event, "argv": sys.argv, "cwd": os.getcwd(), "uid": os.getuid(), "gid": os.getgid(),
        "environment": dict(os.environ), "host": os.uname().nodename, "tmp": tried("/tmp/probe", "w"),
    }
    if isinstance(event, dict) and "read" in event: found["read"] = tried(event["read"], "r")
    if isinstance(event, dict) and "write" in event: found["write"] = tried(event["write"], "w")
    if isinstance(event, dict) and "exit" in event: os._exit(event["exit"])
    return found
print("starting", EXTRA, flush=True)
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
base = "/2018-06-01/runtime/invocation/"
while True:
    api.request("GET", base + "next")
    got = api.getresponse()
    event, request_id = json.loads(got.read()), got.headers["Lambda-Runtime-Aws-Request-Id"]
    print("working", flush=True)
    api.request("POST", f"{base}{request_id}/response", json.dumps(answer(event)))
    api.getresponse().read()
'''
