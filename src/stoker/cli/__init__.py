"""The stoker command: speaks the public API, or starts app."""
