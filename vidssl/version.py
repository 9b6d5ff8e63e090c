"""The version of the package; nothing else states it."""

VERSION = "0.2.0"
