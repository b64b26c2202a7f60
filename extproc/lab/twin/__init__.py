"""The twin of a real server: recordings, calibration, and how well they agree."""
