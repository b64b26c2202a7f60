"""The parts of `extproc up`: child processes, ports, files, and what it says."""
