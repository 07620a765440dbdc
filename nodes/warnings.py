"""Warnings and remarks on the node itself; warnings in the log, too."""

import logging

from server import PromptServer


def tell(node, warnings: list[str], remarks: list[str] = ()) -> None:
    """Show warnings, and what else there is to know, on the node; empty lists show nothing."""
    for warning in warnings:
        logging.warning("%s: %s", node.define_schema().display_name, warning)  # GET_SCHEMA writes to the class, which is locked
    server = getattr(PromptServer, "instance", None)  # there is none when nodes run without a server
    if (warnings or remarks) and server is not None:
        shown = "\n".join([*warnings, *remarks]).replace("<", "‹")  # the frontend takes it as HTML, and a concept's name may hold any text
        server.send_progress_text(shown, node.hidden.unique_id)
