"""One HTTP/1.1 protocol on httptools and uvloop: server and client over Unix sockets, TCP and TLS."""
