"""Processes of a server: their supervisor, and what it shares with systemd."""
