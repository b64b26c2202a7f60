"""Where a request goes, and why: guard, predict, least load, admission."""
