"""Receives files in blocks: resumable, checked, bounded in memory."""
