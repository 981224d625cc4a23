"""The worker manager: which sandboxes are warm or busy, scaling, reclaim. Decisions are plain and pure."""
