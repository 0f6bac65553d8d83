"""An app of the sales topology with a plain Faust agent beside it: one event after the other, and an answer to each."""

from typing import Any

from faust.types import StreamT

from topologies.app import build_app
from topologies.sales import sales_topology
from topologies.settings import Settings

settings = Settings.from_environment()
app = build_app(sales_topology(settings), settings)
notes = app.topic(f"{settings.prefix}notes", value_type=bytes, value_serializer="raw")
answers = app.topic(f"{settings.prefix}answers", value_type=bytes, value_serializer="raw")


@app.agent(notes)
async def answer(stream: StreamT[Any]) -> None:
    """Say each note again."""
    async for note in stream:
        await answers.send(value=b"read " + note)
