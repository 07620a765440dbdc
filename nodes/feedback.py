"""Warnings that appear on the node itself, and in the log."""

import logging

from server import PromptServer


def tell(node, warnings: list[str]) -> None:
    """Show the warnings on the node; an empty list shows nothing."""
    for warning in warnings:
        logging.warning("%s: %s", node.GET_SCHEMA().display_name, warning)
    server = getattr(PromptServer, "instance", None)  # there is none when nodes run without a server
    if warnings and server is not None:
        server.send_progress_text("\n".join(warnings), node.hidden.unique_id)
