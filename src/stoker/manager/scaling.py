"""How fast a function may gain execution environments. Pure: the clock is a value."""

import msgspec

from stoker.services.functions import FunctionKey

SCALING_BURST = 1000
"""New environments that a function may be given at once; AWS's figure per 10 s."""
SCALING_REFILL_PER_S = 100.0
"""1,000 per 10 s, refilled continuously; what is not used does not add up beyond the burst."""


class _Bucket(msgspec.Struct):
    tokens: float
    filled_at_s: float


class ScalingRate:
    """One token bucket per function that scaled lately; full buckets are forgotten."""

    def __init__(self, burst: int = SCALING_BURST, refill_per_s: float = SCALING_REFILL_PER_S) -> None:
        self._burst = float(burst)
        self._refill_per_s = refill_per_s
        self._buckets: dict[FunctionKey, _Bucket] = {}

    def take(self, key: FunctionKey, now_s: float) -> bool:
        """Count one new environment; False when the function has had all that it may have for now."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._burst, now_s)
        self._fill(bucket, now_s)
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True

    def give_back(self, key: FunctionKey) -> None:
        """An environment that was counted was not made after all."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.tokens = min(self._burst, bucket.tokens + 1.0)

    def prune(self, now_s: float) -> None:
        """Forget the buckets that are full again."""
        for key, bucket in list(self._buckets.items()):
            self._fill(bucket, now_s)
            if bucket.tokens >= self._burst:
                del self._buckets[key]

    def __len__(self) -> int:
        return len(self._buckets)

    def _fill(self, bucket: _Bucket, now_s: float) -> None:
        gained = max(0.0, now_s - bucket.filled_at_s) * self._refill_per_s
        bucket.tokens = min(self._burst, bucket.tokens + gained)
        bucket.filled_at_s = now_s
