"""Pictures and drawings of results. Stages use it; nothing below does."""
