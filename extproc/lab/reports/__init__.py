"""The report of `extproc analyze`: one HTML page that needs nothing else, and the numbers as JSON."""
