"""Who may run now: reserved and account concurrency, and the request rate. Plain decisions over values."""

import msgspec

from stoker.core.errors import ServiceError, too_many_requests
from stoker.services.functions import FunctionKey

ACCOUNT_CONCURRENCY = 1000
REQUESTS_PER_CONCURRENCY = 10.0
"""Synchronous requests per second for each unit of concurrency (AWS's quota)."""
ASYNCHRONOUS_SHARE = 0.5
"""Of the unreserved concurrency, for events; the rest is left to synchronous callers."""
FUNCTIONS_KEPT = 10_000

_RESERVED_CONCURRENCY = "ReservedFunctionConcurrentInvocationLimitExceeded"
_RESERVED_RATE = "ReservedFunctionInvocationRateLimitExceeded"
_ACCOUNT_CONCURRENCY = "ConcurrentInvocationLimitExceeded"
_ACCOUNT_RATE = "FunctionInvocationRateLimitExceeded"


class Load:
    """What runs now of one function, or of an account's functions without reserved concurrency."""

    __slots__ = ("filled_at_s", "in_flight", "in_flight_events", "tokens")

    def __init__(self) -> None:
        self.in_flight = 0
        self.in_flight_events = 0
        self.tokens = 0.0
        self.filled_at_s = float("-inf")

    def take_request(self, per_second: float, now_s: float) -> bool:
        """Count one request against a rate that fills continuously and holds one second's worth."""
        tokens = min(per_second, self.tokens + (now_s - self.filled_at_s) * per_second)
        self.filled_at_s = now_s
        allowed = tokens >= 1.0
        self.tokens = tokens - 1.0 if allowed else tokens
        return allowed


Admitted = tuple[Load, Load | None, bool]
"""The function's load, the account's if it draws on that, and whether it is an event."""


class AdmissionStatistics(msgspec.Struct, frozen=True):
    """Invocations in flight and refused, over all accounts."""

    in_flight: int
    throttled: int


class Admission:
    """Counts invocations from admission to their end, cold starts included, as AWS does."""

    def __init__(
        self,
        account_concurrency: int = ACCOUNT_CONCURRENCY,
        requests_per_concurrency: float = REQUESTS_PER_CONCURRENCY,
    ) -> None:
        self._limit = account_concurrency
        self._rate = requests_per_concurrency
        self._functions: dict[FunctionKey, Load] = {}
        self._accounts: dict[tuple[str, str], Load] = {}
        self._in_flight = 0
        self._throttled = 0

    def enter(
        self, key: FunctionKey, *, reserved: int | None, total_reserved: int, event: bool, now_s: float
    ) -> Admitted:
        """Admit one invocation; every admission ends with ``leave``.

        Raises:
            ServiceError: 429 ``Rate Exceeded.`` with the model's Reason.
        """
        load = self._functions.get(key)
        if load is None:
            load = self._add(key)
        if reserved is None:
            account = self._account(key)
            self._check_account(account, self._limit - total_reserved, event=event, now_s=now_s)
            account.in_flight += 1
            account.in_flight_events += event
        else:
            account = None
            self._check_reserved(load, reserved, event=event, now_s=now_s)
        load.in_flight += 1
        self._in_flight += 1
        return load, account, event

    def leave(self, admitted: Admitted) -> None:
        """The invocation ended."""
        load, account, event = admitted
        load.in_flight -= 1
        self._in_flight -= 1
        if account is not None:
            account.in_flight -= 1
            account.in_flight_events -= event

    def statistics(self) -> AdmissionStatistics:
        """Counts as of now."""
        return AdmissionStatistics(self._in_flight, self._throttled)

    def in_flight(self, key: FunctionKey) -> int:
        """Invocations of one function under way."""
        load = self._functions.get(key)
        return 0 if load is None else load.in_flight

    def _check_reserved(self, load: Load, reserved: int, *, event: bool, now_s: float) -> None:
        if load.in_flight >= reserved:
            raise self._refuse(_RESERVED_CONCURRENCY)
        if not event and not load.take_request(reserved * self._rate, now_s):
            raise self._refuse(_RESERVED_RATE)

    def _check_account(self, account: Load, limit: int, *, event: bool, now_s: float) -> None:
        if account.in_flight >= limit:
            raise self._refuse(_ACCOUNT_CONCURRENCY)
        if event:
            if account.in_flight_events >= max(1, int(limit * ASYNCHRONOUS_SHARE)):
                raise self._refuse(_ACCOUNT_CONCURRENCY)
        elif not account.take_request(limit * self._rate, now_s):
            raise self._refuse(_ACCOUNT_RATE)

    def _account(self, key: FunctionKey) -> Load:
        account = (key.account, key.region)
        load = self._accounts.get(account)
        if load is None:
            load = self._accounts[account] = Load()
        return load

    def _add(self, key: FunctionKey) -> Load:
        if len(self._functions) >= FUNCTIONS_KEPT:
            self._functions = {other: load for other, load in self._functions.items() if load.in_flight}
        load = self._functions[key] = Load()
        return load

    def _refuse(self, reason: str) -> ServiceError:
        self._throttled += 1
        return too_many_requests("Rate Exceeded.", reason)
