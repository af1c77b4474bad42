"""Sensor samples in, one synchronised observation out. No ROS."""
