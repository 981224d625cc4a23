"""A Stoker with what the rows stand on, asked strange things one at a time: what is wrong with each answer."""

import json
import time
from typing import Any

from stoker.api.model import compile_service
from stoker.app.api_page import served
from tests.conformance.digests import Kept
from tests.conformance.mutants import READS
from tests.conformance.raw import Answer, Wanted, Wire, check_success, error_of, model
from tests.conformance.rows import LAMBDA_ROWS, MADE_FIRST, MAPPING, ROWS, SIGNING, SOURCE, make_function
from tests.running import RunningStoker

MAPPINGS = 40
"""One that was just updated refuses until it is at rest: the next one takes its place."""

NOT_BUILT = ("NotImplementedException", "NotImplemented")
TOO_LONG = ("InvalidRequest", "The request's head is too long: the HTTP server itself has answered.")
SHARED_CODES = {
    "lambda": {"ValidationException", "SerializationException", "AccessDeniedException"},
    "logs": {"SerializationException", "ValidationException", "InvalidParameterException"},
    "iam": {
        "ValidationError",
        "MalformedInput",
        "AccessDenied",
        "InvalidAction",
        "InvalidInput",
        "NoSuchEntity",
    },
    "sts": {"ValidationError", "MalformedInput", "AccessDenied", "InvalidAction"},
}
"""What operations refuse with beside the errors that their models name."""


class World:
    """A Stoker with what the rows stand on, asked one request at a time."""

    def __init__(self, stoker: RunningStoker) -> None:
        make_function(stoker)
        self._sources = 0
        self.wire = Wire(stoker.port)
        self.kept = Kept(stoker.data)
        for service, operation, members in MADE_FIRST:
            answer = self.wire.ask(service, operation, members)
            assert answer.status < 300, (operation, answer)
        self._signing = self._made("CreateCodeSigningConfig")["CodeSigningConfig"]["CodeSigningConfigArn"]
        self._mappings = [
            self._made("CreateEventSourceMapping", EventSourceArn=f"{SOURCE}-{n}")["UUID"]
            for n in range(MAPPINGS)
        ]
        time.sleep(0.5)  # until the first mappings are at rest
        self.settled()

    def close(self) -> None:
        """Hang up."""
        self.wire.close()
        self.kept.close()

    def _made(self, operation: str, **changes: Any) -> Any:
        answer = self.wire.ask("lambda", operation, {**LAMBDA_ROWS[operation].members, **changes})
        assert answer.status < 300, (operation, answer)
        return json.loads(answer.body)

    def real(self, members: dict[str, Any]) -> dict[str, Any]:
        """Members with the ids that the rows could not know."""
        text = json.dumps(members)
        if not any(name in text for name in (MAPPING, SIGNING, SOURCE)):
            return members
        self._sources += 1
        source = f"{SOURCE}-fresh-{self._sources}"
        text = text.replace(f'"{SOURCE}"', f'"{source}"').replace(MAPPING, self._mappings[0])
        return json.loads(text.replace(SIGNING, self._signing))

    def settled(self) -> None:
        """From now on refusals must leave all as it is."""
        self.kept.settle()
        self._commits, self._digest = self.kept.commits(), self.kept.digest()
        self._logs = self.kept.log_digest()

    def ask(self, service: str, operation: str, members: dict[str, Any]) -> str | None:
        """What is wrong with the answer to these members, or with what it left behind."""
        members = self.real(members)
        answer = self.wire.ask(service, operation, members)
        problem = self.judged(service, operation, answer)
        if answer.status < 300:
            self._taken_back(service, operation, members, answer)
        return problem

    def judged(self, service: str, operation: str, answer: Answer) -> str | None:
        """What is wrong with an answer, or with what it left behind."""
        try:
            if answer.status < 300:
                check_success(service, operation, answer)
                return None
            code, message = TOO_LONG if answer.status in (414, 431) else error_of(service, answer)
        except (AssertionError, KeyError, ValueError, SyntaxError) as problem:
            return f"malformed: {type(problem).__name__} {problem} in {answer}"
        if answer.status >= 500 and code not in NOT_BUILT:
            return f"{answer.status} {code}: {message}"
        if not _known(service, operation, code):
            return f"{code} is not modelled: {message}"
        if not self.left_alone(service):
            return f"refused, and yet it wrote: {code}: {message}"
        return None

    def left_alone(self, service: str) -> bool:
        """Whether all is as it was when it last settled."""
        logs = self.kept.log_digest() if service == "logs" else self._logs
        if self.kept.commits() == self._commits and logs == self._logs:
            return True
        before = (self._digest, self._logs)
        self.settled()
        return before == (self._digest, self._logs)

    def _taken_back(self, service: str, operation: str, sent: dict[str, Any], answer: Answer) -> None:
        undo = ROWS[service][operation].undo
        self.kept.settle()
        if operation in ("UpdateEventSourceMapping", "DeleteEventSourceMapping"):
            self._mappings.append(self._mappings.pop(0))
        if undo is not None:
            back, members = undo(sent, check_success(service, operation, answer))
            self.wire.ask(service, back, members)
        if not operation.startswith(READS):
            self.settled()


def _known(service: str, operation: str, code: str) -> bool:
    """Whether an operation may refuse so."""
    if code in NOT_BUILT or code in SHARED_CODES[service] or code == TOO_LONG[0]:
        return True
    described = model(service)
    errors = [each["shape"] for each in described["operations"][operation].get("errors", ())]
    codes = {described["shapes"][name].get("error", {}).get("code", name) for name in errors}
    return code in codes or code.removesuffix("Exception") in codes


def operations() -> list[tuple[str, str]]:
    """All operations that are served."""
    found = [(service, name) for service in ("lambda", "logs") for name in sorted(served(service))]
    return found + [
        (service, name) for service in ("iam", "sts") for name in compile_service(service).operations
    ]


def judge(world: World, service: str, operation: str, wanted: Wanted) -> None:
    """Fail when an answer is not in order."""
    answer = world.wire.send(service, wanted)
    if answer.status < 300:
        world.settled()
        return
    try:
        code, _ = TOO_LONG if answer.status in (414, 431) else error_of(service, answer)
    except (AssertionError, KeyError, ValueError, SyntaxError) as problem:
        raise AssertionError(f"malformed: {wanted}: {answer}") from problem
    assert answer.status < 500 or code in NOT_BUILT, (wanted, answer)
    assert world.left_alone(service), f"refused, and yet it wrote: {wanted}: {answer}"
