"""The machine instructions of a request, by part, counted by callgrind."""
