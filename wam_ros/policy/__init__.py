"""Observations in, action chunks out: backends, frame buffer, cadence. No ROS."""
