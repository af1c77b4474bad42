"""What episodes add up to: records, statistics, a table and a picture. No ROS, no torch."""

from wam_ros.evaluation.picture import draw
from wam_ros.evaluation.record import EpisodeRecord, plain, read_records, write_records
from wam_ros.evaluation.summary import Comparison, Interval, Summary, compare, summarise
from wam_ros.evaluation.table import table, to_dict

__all__ = [
    "Comparison",
    "EpisodeRecord",
    "Interval",
    "Summary",
    "compare",
    "draw",
    "plain",
    "read_records",
    "summarise",
    "table",
    "to_dict",
    "write_records",
]
