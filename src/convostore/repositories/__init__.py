"""Repositories: what an application calls to keep and to find conversations and messages."""
