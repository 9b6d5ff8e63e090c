"""Tells what the runs of a workspace learned: the verdict, and one page with all that shows it."""
