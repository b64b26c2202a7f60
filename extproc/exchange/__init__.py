"""One HTTP exchange, without I/O: headers and body in, one instruction out."""
