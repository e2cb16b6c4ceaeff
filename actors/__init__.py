"""Thin actors: claim the job, call the concept that does the work, hand over."""
