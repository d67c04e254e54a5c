"""Decisions as pure functions: a state and an event in, the next state and effects out. No network, no clock."""
