"""What `extproc status` and `extproc train` do and show."""
