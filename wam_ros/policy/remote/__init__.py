"""Policies that run elsewhere: one driver per protocol, one backend around them all. No ROS."""
