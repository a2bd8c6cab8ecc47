"""Never lost, never twice: real processes that are killed, paused, cut off, and lied to by their clocks."""
