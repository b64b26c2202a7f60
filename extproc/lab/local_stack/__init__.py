"""What `extproc up` is made of: child processes, ports, files, and what it says."""
