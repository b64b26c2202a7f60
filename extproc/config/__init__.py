"""The configuration: one frozen model per stage, read from `extproc.yaml`."""
