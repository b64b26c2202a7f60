"""The stateful router: the core, bookings, the queue, feedback, refusals."""
