"""One module a revision; none is edited once released."""
