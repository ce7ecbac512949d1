"""Derives requests from an OpenAPI document, and checks responses against it.

Runs in the environment `.local/openapi`, so that the journeys need none of its libraries.
"""
