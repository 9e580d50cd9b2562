"""Connections: settings, opened databases, local servers."""
