"""The worker manager: which sandboxes are warm or busy, scaling, idle reclaim. Decisions are synchronous and pure."""
