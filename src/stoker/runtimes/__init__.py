"""The built-in runtimes as data, and their bootstraps."""
