"""Whether policies come out behind a real Envoy, in real time, as the evaluator ranks them."""
