"""The invoke path: resolve, authorise, limit; synchronous, asynchronous and dry-run invocations."""
