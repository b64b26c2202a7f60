"""All the I/O: gRPC, access log, scraper, files, store, HTTP, simulated vLLM."""
