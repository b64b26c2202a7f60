"""Policies compared in virtual time: the production policy and its rivals, on simulated fleets."""
