"""HTTP/2 (RFC 9113), the server's side, as far as a gRPC server for Envoy needs it.

The state machine (`connection`) turns bytes into events and calls into bytes, without I/O or clock.
`protocol` moves its bytes through a uvloop transport.
"""
