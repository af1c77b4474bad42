"""The robot contract: one YAML per robot, read by every part."""

from wam_ros.contract.data import ActionChunk, Observation
from wam_ros.contract.load import ContractError, load_contract, robots
from wam_ros.contract.model import Contract

__all__ = ["ActionChunk", "Contract", "ContractError", "Observation", "load_contract", "robots"]
