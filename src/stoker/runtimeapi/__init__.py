"""The Lambda Runtime API: pure states and one server per sandbox."""
