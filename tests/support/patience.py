"""How long tests wait for what takes moments, on a machine that may be very busy."""

PATIENCE = 300.0  # seconds; a test that reaches them has failed
