"""The engine: the loop that carries out what the core decides."""

from scheduler.engine.loop import Engine as Engine
from scheduler.engine.ports import World as World
from scheduler.engine.settings import EngineSettings as EngineSettings

__all__ = ["Engine", "EngineSettings", "World"]
